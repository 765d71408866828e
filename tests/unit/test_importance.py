"""What matters of a model, against loops over single rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pkt.attribution import importance
from pkt.attribution.importance import measure
from pkt.data.encoding import Encoded
from pkt.errors import PktError, RequestError
from pkt.models.architecture import Architecture
from tiny import tiny_model

DEPTH = 3
ROWS = Encoded(
    input_ids=[
        [3 + (7 * row + place) % 300 for place in range(length)] for row, length in enumerate((9, 5, 12, 7))
    ],
    prompt_lengths=[4, 3, 6, 2],
)


def states(model: Any) -> Iterator[tuple[Tensor, ...]]:
    """Yield h_0 .. h_L of each row alone, (L + 1) of (T, D), before the final norm."""
    for ids in ROWS.input_ids:
        seen: list[Tensor] = []
        handles = [
            layer.register_forward_hook(
                lambda _m, args, out, seen=seen: seen.extend([args[0][0], _first(out)])
            )
            for layer in _layers(model)
        ]
        with torch.no_grad():
            model(torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        yield (*seen[::2], seen[-1])


def _first(output: Any) -> Tensor:
    return (output[0] if isinstance(output, tuple) else output)[0]


def _layers(model: Any) -> Any:
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


@pytest.fixture(params=["llama", "gpt2", "gemma3_text"])
def model(request) -> Any:
    return tiny_model(request.param, depth=DEPTH)


def test_residual_is_what_a_layer_changes(model):
    changes = [
        1 - torch.cosine_similarity(row[layer], row[layer + 1], dim=-1)
        for row in states(model)
        for layer in range(DEPTH)
    ]
    expected = [torch.cat(changes[layer::DEPTH]).mean() for layer in range(DEPTH)]
    torch.testing.assert_close(
        torch.tensor(measure("residual", Architecture.of(model), ROWS)), torch.stack(expected), atol=1e-5, rtol=1e-4,
        check_dtype=False,
    )  # fmt: skip


def test_cka_compares_what_enters_and_what_leaves(model):
    rows = list(states(model))
    expected = []
    for layer in range(DEPTH):
        x, y = (torch.cat([row[layer + side] for row in rows]).double() for side in (0, 1))
        x, y = x - x.mean(0), y - y.mean(0)
        expected.append(1 - (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))
    found = torch.tensor(measure("cka", Architecture.of(model), ROWS))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4, check_dtype=False)


def test_attribution_is_the_first_order_loss_of_what_a_layer_adds():
    found = measure("attribution", Architecture.of(tiny_model("llama", depth=DEPTH)), ROWS)
    assert len(found) == DEPTH
    assert all(value > 0 for value in found)  # its own tests compare it with a finite difference


def test_heads_channels_and_stream_by_the_size_of_what_enters():
    model = tiny_model("llama", depth=DEPTH)
    seen: dict[str, list[Tensor]] = {}
    for layer, module in enumerate(model.model.layers):
        for name, own in (("q", module.self_attn.q_proj), ("o", module.self_attn.o_proj),
                          ("up", module.mlp.up_proj), ("down", module.mlp.down_proj)):  # fmt: skip
            own.register_forward_pre_hook(
                lambda _m, args, key=f"{name}{layer}": seen.setdefault(key, []).append(args[0][0])
            )
    with torch.no_grad():
        for ids in ROWS.input_ids:
            model(torch.tensor([ids]), use_cache=False)
    flat = {key: torch.cat(parts) for key, parts in seen.items()}
    expected = {
        "heads": torch.stack([flat[f"o{k}"].view(-1, 4, 8).norm(dim=-1).mean(0) for k in range(DEPTH)]),
        "mlp": torch.stack([flat[f"down{k}"].abs().mean(0) for k in range(DEPTH)]),
        "hidden": torch.stack(
            [flat[f"{n}{k}"].abs().mean(0) for k in range(DEPTH) for n in ("q", "up")]
        ).mean(0),
    }
    arch = Architecture.of(tiny_model("llama", depth=DEPTH))
    for what, wanted in expected.items():
        found = torch.tensor(measure(what, arch, ROWS))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4, check_dtype=False)


def test_padding_and_batches_do_not_matter(monkeypatch, model):
    arch = Architecture.of(model)
    together = {what: torch.tensor(measure(what, arch, ROWS)) for what in importance.MEASURES}
    monkeypatch.setattr(importance, "BATCH", 1)
    for what, expected in together.items():
        found = torch.tensor(measure(what, arch, ROWS))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_massive_positions_are_left_out():
    """The first token of a row as in large models: a state a thousand times as long as all others."""
    model = tiny_model("llama", depth=DEPTH)
    ordinary = measure("mlp", Architecture.of(model), ROWS)
    rows = Encoded(input_ids=[*ROWS.input_ids, [319]], prompt_lengths=[*ROWS.prompt_lengths, 1])
    with torch.no_grad():
        model.model.embed_tokens.weight[319] *= 1e4
    torch.testing.assert_close(measure("mlp", Architecture.of(model), rows), ordinary, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_measured_is_refused():
    model = tiny_model("llama", depth=1)
    with pytest.raises(RequestError, match=r"raise data\.sizes\.extract"):
        measure("residual", Architecture.of(model), Encoded(input_ids=[], prompt_lengths=[]))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    with pytest.raises(PktError, match="importance of the teacher's mlp is NaN"):
        measure("mlp", Architecture.of(model), ROWS)
