"""Students cut by width compute what the rows and columns that stay compute, whatever code loads them."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pkt.errors import RequestError
from pkt.models.kept import Kept
from pkt.models.narrow import narrow, text_alone
from pkt.models.quiet import quiet_transformers
from pkt.models.surgery import prune
from tiny import tiny_model

IDS = torch.randint(3, 320, (2, 12), generator=torch.Generator().manual_seed(0))
LAYERS, WIDTH, HEAD, QUERIES, MLP = 3, 32, 12, 2, 80  # no two axes of a matrix are equally long
KEPT = {
    "heads": {"groups": ((1,), (0,), (1,))},
    "mlp": {"mlp": tuple(tuple(range(start, start + 48)) for start in (0, 7, 32))},
    "hidden": {"hidden": (*range(3, 20), 22, 25, 26, 28, 29, 30, 31)},
}
KEPT["all"] = KEPT["heads"] | KEPT["mlp"] | KEPT["hidden"]
# GPT-2 has one query per key-value head, and heads as wide as hidden / heads: both are cut by the same share
GPT = {"groups": ((1, 2, 3), (0, 1, 3), (0, 2, 3))}
GPT_HALF = {"groups": ((1, 2), (0, 1), (2, 3)), "hidden": tuple(range(16))}
CODEGEN = {
    "like": "gpt2",
    "projections": {
        "qkv": "attn.qkv_proj",
        "o": "attn.out_proj",
        "up": "mlp.fc_in",
        "down": "mlp.fc_out",
    },
}
TIED = {"gemma3_text": True, "qwen3": True}


def teacher(family: str) -> Any:
    sizes = {"head_dim": HEAD, "intermediate_size": MLP} if family != "gpt2" else {"n_inner": MLP}
    return tiny_model(family, depth=LAYERS, width=WIDTH, tied=TIED.get(family, False), **sizes)


def chosen(family: str, what: str) -> Kept:
    own = dict(KEPT[what])
    if family == "gpt2" and what in ("hidden", "all"):
        own |= GPT
    return Kept(layers=(1, 2, 3), **own)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def heads(kept: Kept, layer: int, per_group: int, size: int) -> list[int]:
    groups = kept.groups[layer] if kept.groups else ()
    return [
        channel
        for group in groups
        for channel in range(group * per_group * size, (group + 1) * per_group * size)
    ]


def by_hand(model: Any, kept: Kept, size: int) -> dict[str, Tensor]:
    """Return the kept rows and columns of all tensors: axes of one length are the same thing, but for heads."""
    found = {}
    for name, tensor in model.state_dict().items():
        layer = int(number[1]) if (number := re.search(r"\.(\d+)\.", name)) else 0
        cut = tensor
        if kept.groups and "c_attn" in name:  # queries, keys, values, each of all heads
            parts = [part[..., heads(kept, layer, 1, size)] for part in tensor.chunk(3, dim=-1)]
            cut = torch.cat(parts, dim=-1)
        elif kept.groups and re.search(r"q_proj|[kv]_proj", name):
            cut = tensor[heads(kept, layer, QUERIES if "q_proj" in name else 1, size)]
        elif kept.groups and "o_proj" in name:
            cut = tensor[:, heads(kept, layer, QUERIES, size)]
        elif kept.groups and "attn.c_proj.weight" in name:
            cut = tensor[heads(kept, layer, 1, size)]
        for axis, length in enumerate(tensor.shape):
            if kept.mlp and length == MLP:
                cut = cut.index_select(axis, torch.tensor(kept.mlp[layer]))
            heads_of_gpt = "attn.c_proj.weight" in name and axis == 0
            if kept.hidden and length == WIDTH and not heads_of_gpt:
                cut = cut.index_select(axis, torch.tensor(kept.hidden))
        found[name] = cut
    return found


def silenced(model: Any, kept: Kept, size: int) -> Any:
    """Let the heads and intermediate channels that go give nothing, at the whole width."""
    with torch.no_grad():
        for name, module in model.named_modules():
            layer = int(number[1]) if (number := re.search(r"\.(\d+)\.", name)) else 0
            inputs = module.weight.T if name.endswith("c_proj") else getattr(module, "weight", None)
            if kept.groups and name.endswith(("o_proj", "attn.c_proj")):
                stay = heads(kept, layer, 1 if name.endswith("c_proj") else QUERIES, size)
            elif kept.mlp and name.endswith(("down_proj", "mlp.c_proj")):
                stay = list(kept.mlp[layer])
            else:
                continue
            gone = [channel for channel in range(inputs.shape[1]) if channel not in stay]
            inputs[:, gone] = 0
    return model


@pytest.mark.parametrize("what", KEPT)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_a_cut_computes_what_stays_and_loads_anywhere(family, what, tmp_path):
    whole = teacher(family)
    kept = chosen(family, what)
    if family == "gpt2" and what == "heads":
        with pytest.raises(RequestError, match="cut both by the same share"):
            narrow(whole, Kept(layers=(1, 2, 3), **GPT))
        return
    size = HEAD if family != "gpt2" else WIDTH // 4
    cut = narrow(whole, kept)
    reference = AutoModelForCausalLM.from_config(
        cut.config, attn_implementation=whole.config._attn_implementation
    ).eval()
    reference.load_state_dict(by_hand(whole, kept, size))
    near = {"atol": 1e-5 * float(logits(cut).abs().max()), "rtol": 1e-4}
    torch.testing.assert_close(logits(cut), logits(reference), **near)
    with quiet_transformers():
        cut.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(again), logits(cut), **near)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["head_dim"] == size
    tied = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert tied == bool(whole.config.tie_word_embeddings)
    if not kept.hidden:
        torch.testing.assert_close(logits(cut), logits(silenced(whole, kept, size)), **near)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_depth_and_width_together_and_generation_with_a_cache(family):
    whole = teacher(family)
    own = {"groups": ((1, 2, 3), (0, 2, 3))} if family == "gpt2" else {"groups": ((1,), (0,))}
    cut = narrow(prune(whole, [1, 3]), Kept(layers=(1, 3), hidden=KEPT["hidden"]["hidden"], **own))
    assert cut.config.num_hidden_layers == 2
    assert cut.generation_config.eos_token_id == 2
    cached, plain = (
        cut.generate(IDS[:1], max_new_tokens=8, do_sample=False, use_cache=use) for use in (True, False)
    )
    torch.testing.assert_close(cached, plain, atol=0, rtol=0)


def test_biases_go_with_their_rows():
    whole = tiny_model("qwen2", depth=1, intermediate_size=MLP)
    own = whole.model.layers[0].self_attn
    cut = narrow(whole, Kept(layers=(1,), groups=((1,),)))
    torch.testing.assert_close(
        cut.model.layers[0].self_attn.q_proj.bias, own.q_proj.bias[16:], atol=0, rtol=0
    )
    torch.testing.assert_close(cut.model.layers[0].self_attn.v_proj.bias, own.v_proj.bias[8:], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("family", "changes", "roles", "kept", "says"),
    [
        ("qwen3_moe", {"num_experts": 2}, {"like": "llama"}, KEPT["mlp"], "no layer|only in layers"),
        ("phi3", {}, {"like": "llama"}, KEPT["hidden"], "linear map 'q' in no layer"),
        (
            "gpt_neox",
            {},
            {},
            GPT | KEPT["hidden"],
            "computes something else",
        ),  # q, k and v of one head side by side
        (
            "olmo2",
            {},
            {"like": "llama"},
            KEPT["heads"],
            r"q_norm\.weight is \(16,\)",
        ),  # a norm over all heads
        ("gpt2", {}, {}, KEPT["hidden"], "cut both by the same share"),
        # transformers' own reason, which stands in the second line of its message
        ("llama", {}, {}, {"hidden": tuple(range(30))}, r"hidden size \(30\) is not a multiple"),
        # fused in four shards, which do not fit two heads
        ("codegen", {"rotary_dim": 4, "n_inner": 64}, CODEGEN, GPT_HALF, "cannot be computed"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name(family, changes, roles, kept, says):
    own = (
        {}
        if family.startswith("gpt") or family == "codegen"
        else {"num_key_value_heads": 2, "intermediate_size": MLP}
    )
    whole = tiny_model(family, depth=LAYERS, **(own | changes))
    with pytest.raises(
        RequestError, match=f"model.student.cut: the widths of this {family} model.*({says}).*"
    ):
        narrow(whole, Kept(layers=(1, 2, 3), **kept), roles=roles)


def test_a_tensor_that_is_no_projection_norm_or_embedding_is_refused(monkeypatch):
    built = narrow.__globals__["built"]

    def with_another(config: Any, make: Any) -> Any:
        model = built(config, make)
        model.model.layers[0].mlp.adapter = nn.Linear(config.hidden_size, 4, device="meta")
        return model

    monkeypatch.setitem(narrow.__globals__, "built", with_another)
    with pytest.raises(
        RequestError, match=r"does not know what model\.layers\.0\.mlp\.adapter\.weight \(4, 32\)"
    ):
        narrow(tiny_model("llama", depth=1), Kept(layers=(1,), hidden=(0, 1)))


def test_what_pkt_knows_of_a_cut_is_judged_by_its_logits(monkeypatch):
    """The masked teacher notices a wrong cut: here rows of other heads than those that are said to stay."""
    whole = teacher("llama")
    kept = Kept(layers=(1, 2, 3), groups=((1,), (1,), (1,)))
    real = narrow.__globals__["_sliced"]
    monkeypatch.setitem(
        narrow.__globals__,
        "_sliced",
        lambda arch, _kept: real(arch, Kept(layers=(1, 2, 3), groups=((0,), (1,), (1,)))),
    )
    with pytest.raises(RequestError, match="what stays computes something else than it did"):
        narrow(whole, kept)


def test_a_language_model_inside_another_is_refused():
    around = SimpleNamespace(model_type="gemma3", get_text_config=lambda: tiny_model("gemma3_text").config)
    with pytest.raises(
        RequestError, match=r"widths of this gemma3 model .* inside one that reads more than text"
    ):
        text_alone(around)
