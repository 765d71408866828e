"""Attribution against captum, against one example at a time, and against its definition by hand."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model
from torch.nn import functional

from pkt.attribution import REDUCTIONS, layer, layer_attribution
from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, decode
from textbook.attribution import Rows, captum_products, reduced

LENGTHS, PROMPTS = (9, 5, 12, 7), (3, 2, 11, 1)  # tokens per row, of which the first belong to the prompt
TIGHT = {"rtol": 1e-4, "atol": 1e-7}


def rows(chosen=range(4), *, extra=0, left=False):
    chosen = list(chosen)
    width = max(LENGTHS[row] for row in chosen) + extra
    ids, mask, supervised = (torch.zeros(len(chosen), width, dtype=torch.long) for _ in range(3))
    for place, row in enumerate(chosen):
        tokens = torch.randint(3, 300, (LENGTHS[row],), generator=torch.Generator().manual_seed(row))
        start = width - LENGTHS[row] if left else 0
        ids[place, start : start + LENGTHS[row]] = tokens
        mask[place, start : start + LENGTHS[row]] = 1
        supervised[place, start + PROMPTS[row] - 1 : start + LENGTHS[row] - 1] = 1
    return Rows(input_ids=ids, attention_mask=mask, supervised=supervised.bool())


@pytest.mark.parametrize("interface", ["mlp", "block"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "qwen3"])
def test_equals_captum(family, interface):
    arch, batch = Architecture.of(tiny_model(family, depth=3)), rows()
    products = captum_products(arch, batch, interface)
    for reduce in REDUCTIONS:
        expected = torch.stack([reduced(product, reduce) for product in products])
        got = layer_attribution(arch, [batch], interface, reduce=reduce)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, expected, **TIGHT)


@pytest.mark.parametrize("interface", list(Interface))
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "opt"])
def test_equals_finite_differences(family, interface):
    """Scaling a state by 1 + e changes example n's loss by e * sum_td g h."""
    arch, batch = Architecture.of(tiny_model(family, depth=2).double()), rows()
    got = layer_attribution(arch, [batch], interface, reduce="signed")

    def shifted(number, step):
        def on_layer(_module, args, kwargs, output):
            out = output[0] if isinstance(output, tuple) else output
            entering = args[0] if args else kwargs["hidden_states"]
            moved = out + step * (out if interface is Interface.block else out - entering)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        def on_sublayer(_module, _args, output):
            if isinstance(output, tuple):
                return (output[0] * (1 + step), *output[1:])
            return output * (1 + step)

        if interface in (Interface.block, Interface.residual):
            handle = arch.layer(number).register_forward_hook(on_layer, with_kwargs=True)
        else:
            handle = arch.sublayer_out(number, interface.value).register_forward_hook(on_sublayer)
        with torch.no_grad():
            final = decode(arch, batch.input_ids, batch.attention_mask)
            logits = arch.read_out(final)
        handle.remove()
        labels = functional.pad(batch.input_ids[:, 1:], (0, 1))
        losses = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return float(((losses * batch.supervised).sum(1) / batch.supervised.sum(1)).mean())

    rms = family in ("llama", "gemma2")  # their norms compute in float32: a small step drowns in round-off
    e = 3e-3 if rms else 1e-5
    expected = [(shifted(n, e) - shifted(n, -e)) / (2 * e) for n in range(1, arch.depth + 1)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_batches_and_padding_do_not_matter(family, reduce):
    arch = Architecture.of(tiny_model(family))
    whole = layer_attribution(arch, [rows()], "mlp", reduce=reduce)
    plans = {
        "one row per batch": [rows([row]) for row in range(4)],
        "uneven": [rows([2, 0, 3]), rows([1])],
        "more padding": [rows(extra=6)],
    }
    for name, plan in plans.items():
        got = layer_attribution(arch, iter(plan), "mlp", reduce=reduce)
        torch.testing.assert_close(got, whole, **TIGHT, msg=name)


def test_left_padding_does_not_matter():
    arch = Architecture.of(tiny_model("llama"))  # rotary: only relative positions count
    right, left = (layer_attribution(arch, [rows(left=side)], "block") for side in (False, True))
    torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5])
def test_chunks_of_the_head_do_not_matter(chunk, monkeypatch):
    arch = Architecture.of(tiny_model("gemma2"))  # soft-capped logits
    whole = layer_attribution(arch, [rows()], "mlp")
    monkeypatch.setattr(layer, "CHUNK", chunk)
    torch.testing.assert_close(layer_attribution(arch, [rows()], "mlp"), whole, **TIGHT)


def test_model_is_left_as_it_was():
    model = tiny_model("llama", depth=2)
    names = [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == names[3])
    arch = Architecture.of(model)
    with torch.no_grad():  # a caller's no_grad is no obstacle
        layer_attribution(arch, [rows()], "mlp")
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [names[3]]
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RequestError):
        layer_attribution(
            arch, [Rows(rows().input_ids, rows().attention_mask, rows().supervised & False)], "mlp"
        )
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [names[3]]
    assert not any(module._forward_hooks for module in model.modules())


def test_bfloat16_model():
    model = tiny_model("llama")
    whole = layer_attribution(Architecture.of(model), [rows()], "block", reduce="abs")
    half = layer_attribution(Architecture.of(model.bfloat16()), [rows()], "block", reduce="abs")
    assert half.dtype == torch.float64
    torch.testing.assert_close(half, whole, rtol=0.1, atol=0.0)


def test_refusals():
    arch = Architecture.of(tiny_model("llama", depth=1))
    with pytest.raises(RequestError, match=r"reduce=exmaple is not one of .* \(did you mean 'example'\?\)"):
        layer_attribution(arch, [rows()], "mlp", reduce="exmaple")
    with pytest.raises(RequestError, match="the extract split is empty"):
        layer_attribution(arch, [], "mlp")
    batch = rows()
    supervised = batch.supervised.clone()
    supervised[2] = False
    with pytest.raises(RequestError, match=r"rows \[2\] of an extract batch have no answer token"):
        layer_attribution(arch, [Rows(batch.input_ids, batch.attention_mask, supervised)], "mlp")
