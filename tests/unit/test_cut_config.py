"""A cut student is saved with a config that makes the same layers again, whatever codes their kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from campaigns.tiny_families import tiny_family
from pkt.errors import RequestError
from pkt.models.quiet import quiet_transformers
from pkt.models.surgery import prune, pruned_config

IDS = torch.randint(
    3, 1000, (2, 24), generator=torch.Generator().manual_seed(0)
)  # longer than the windows of 8
LLAMA = {"like": "llama", "projections": {}}
KINDS: dict[str, tuple[dict[str, Any], list[int]]] = {
    # what codes the kind of a layer, and layers that stay
    "glm4_moe": ({"first_k_dense_replace": 3}, [1, 3, 4, 6]),  # the first k are dense
    "qwen3_moe": ({"mlp_only_layers": [0, 3]}, [2, 4, 5]),  # numbers of dense layers
    "qwen2_moe": ({"decoder_sparse_step": 2}, [2, 3, 4]),  # every second has experts
    "gemma3_text": ({"sliding_window": 8}, [2, 3, 6]),  # one kind per layer
    "smollm3": ({}, [1, 4, 5]),  # one flag per layer
    "qwen3_next": ({}, [1, 3, 4, 6]),  # attention in one layer of four
    "bamba": ({}, [2, 3, 5]),  # numbers of attention layers
}
ROLES = {
    "bamba": LLAMA
    | {"final_norm": "model.final_layernorm", "attention": "mamba", "mlp": "feed_forward"}
    | {"attention_out": "mamba", "mlp_out": "feed_forward"},
    "qwen3_next": LLAMA | {"attention": "linear_attn", "attention_out": "linear_attn"},
}


def roles_of(family: str) -> dict[str, Any]:
    return ROLES.get(family, LLAMA)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def without_the_others(model: Any, layers: list[int]) -> torch.Tensor:
    """Return the whole model's logits where each layer that goes gives back what enters it."""
    handles = [
        layer.register_forward_hook(
            lambda _m, args, kwargs, out: (
                (args[0], *out[1:]) if isinstance(out, tuple) else (args or [kwargs["hidden_states"]])[0]
            ),
            with_kwargs=True,
        )
        for number, layer in enumerate(model.model.layers, 1)
        if number not in layers
    ]
    found = logits(model)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("family", KINDS)
def test_a_saved_cut_is_the_teachers_layers(family, tmp_path):
    changes, layers = KINDS[family]
    whole = tiny_family(family, **changes)
    expected = without_the_others(whole, layers)
    config = pruned_config(whole.config, layers, roles=roles_of(family))
    cut = prune(copy.deepcopy(whole), layers, roles=roles_of(family))
    assert {k: v for k, v in config.to_dict().items() if k != "dtype"} == {
        k: v for k, v in cut.config.to_dict().items() if k != "dtype"
    }
    with quiet_transformers():
        cut.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path)
    near = {"atol": 1e-5 * float(expected.abs().max()), "rtol": 1e-4}
    torch.testing.assert_close(logits(cut), expected, **near)
    torch.testing.assert_close(logits(again), expected, **near)


@pytest.mark.parametrize(
    ("family", "layers", "says"),
    [
        ("diffllama", [1, 3, 4], r"lambda_init"),  # a constant made of the layer's number
        ("olmo_hybrid", [1, 2, 3], r"full_attention|validat"),  # no layer of one kind is left
        ("modernbert-decoder", [2, 3], r"attn_norm"),  # the first layer is another one
    ],
)
def test_what_no_config_says_is_refused(family, layers, says):
    roles = (
        LLAMA
        if family == "diffllama"
        else LLAMA | {"attention": "linear_attn", "attention_out": "linear_attn"}
    )
    if family == "modernbert-decoder":
        roles = {"decoder": "model", "layers": "model.layers", "embed": "model.embeddings.tok_embeddings"}
        roles |= {"final_norm": "model.final_norm", "head": "decoder", "attention": "attn", "mlp": "mlp"}
    whole = tiny_family(family)
    message = rf"model\.student\.layers=.*{says}.*depends on their numbers.*init=load"
    with pytest.raises(RequestError, match=message):
        pruned_config(whole.config, layers, roles=roles)
    with pytest.raises(RequestError, match=message):
        prune(whole, layers, roles=roles)


def test_layers_that_need_those_that_go():
    whole = tiny_family("gemma4_text")
    roles = {"like": "gemma3_text", "projections": {}}
    with pytest.raises(RequestError, match=r"model\.student\.layers=\[1, 3, 4, 6\].*embed_tokens_per_layer"):
        prune(whole, [1, 3, 4, 6], roles=roles)
