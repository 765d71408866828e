"""Cutting layers out, putting adapters in and folding them into the weights, for every family."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.surgery import lora_config, prune, pruned_config
from pkt.models.taps import Interface, decode, skip_below, tap
from tiny import FAMILIES, tiny_config, tiny_model

IDS = torch.randint(3, 320, (2, 12), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
EXACT = {"atol": 0.0, "rtol": 0.0}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).logits


def test_keeping_all_layers_changes_nothing(family):
    model = tiny_model(family)
    expected = logits(model)
    torch.testing.assert_close(logits(prune(model, [1, 2, 3, 4])), expected, **EXACT)


def test_pruned_model_runs_the_kept_layers(family, tmp_path):
    model = tiny_model(family, depth=5)
    whole = copy.deepcopy(model)
    cut = prune(model, [2, 3, 5])
    assert cut.config.num_hidden_layers == 3
    assert Architecture.of(cut).depth == 3
    expected = pruned_config(whole.config, [2, 3, 5])
    assert getattr(cut.config, "layer_types", None) == getattr(expected, "layer_types", None)
    cached = cut.generate(IDS[:1], max_new_tokens=8, do_sample=False, use_cache=True)
    plain = cut.generate(IDS[:1], max_new_tokens=8, do_sample=False, use_cache=False)
    torch.testing.assert_close(cached, plain, **EXACT)
    cut.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation=whole.config._attn_implementation
    )
    torch.testing.assert_close(logits(again), logits(cut), atol=1e-6, rtol=1e-5)


def test_cut_layers_are_those_of_the_teacher():
    arch = Architecture.of(tiny_model("llama", depth=5))
    with torch.no_grad(), tap(arch, [3], Interface.block) as states:
        decode(arch, IDS, MASK)
    with torch.no_grad(), skip_below(arch, 4, states[3]):
        expected = decode(arch, IDS, MASK)
    cut = Architecture.of(prune(arch.model, [4, 5]))
    with torch.no_grad(), skip_below(cut, 1, states[3]):
        torch.testing.assert_close(decode(cut, IDS, MASK), expected, **EXACT)


@pytest.mark.parametrize("layers", [[], [0, 1], [1, 5], [2, 1], [1, 1]])
def test_layers_that_cannot_be_kept(layers):
    with pytest.raises(RequestError, match="from 1 to 4"):
        prune(tiny_model("llama"), layers)
    with pytest.raises(RequestError, match="from 1 to 4"):
        pruned_config(tiny_config("llama"), layers)


def test_layers_that_depend_on_their_number():
    scaled = {"scale_attn_by_inverse_layer_idx": True}
    with pytest.raises(RequestError, match=r"layers=\[1, 3\].*attn\.scaling.*depends on their"):
        prune(tiny_model("gpt2", **scaled), [1, 3])
    first = prune(tiny_model("gpt2", **scaled), [1, 2])  # these two keep their numbers
    assert first.config.num_hidden_layers == 2


@pytest.fixture
def adapted(family):
    model = tiny_model(family)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    arch = Architecture.of(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = get_peft_model(model, lora_config(arch, [2, 4], ["up", "down", "v", "o"], rank=2, alpha=4))
    return arch, adapter, before


def trainable(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def test_adapters_sit_on_the_declared_projections_only(adapted):
    arch, adapter, _ = adapted
    names = trainable(adapter)
    assert len(names) == 2 * 4 * 2  # layers x projections x (A, B)
    stack = arch.roles.layers
    assert all(f".{stack}.1." in name or f".{stack}.3." in name for name in names)
    torch.testing.assert_close(arch.head_weight().shape, torch.Size([320, 32]))


def test_taps_see_the_adapter(adapted):
    arch, adapter, _ = adapted
    plain = tiny_model(arch.model.config.model_type)
    torch.testing.assert_close(logits(adapter), logits(plain), atol=1e-6, rtol=1e-5)
    with tap(arch, [2, 3], Interface.mlp) as states:
        arch.read_out(decode(arch, IDS, MASK)).square().mean().backward()
    gradients = {n: p.grad for n, p in adapter.named_parameters() if p.grad is not None}
    assert gradients.keys() == trainable(adapter).keys()
    assert states[2].shape == (2, 12, 32)


def test_merging_is_exact_and_changes_targets_only(adapted, tmp_path):
    arch, adapter, before = adapted
    with torch.no_grad():
        for name, parameter in trainable(adapter).items():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    expected = logits(adapter)
    adapter.save_pretrained(tmp_path)
    merged = adapter.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, atol=1e-6 * expected.abs().max().item(), rtol=1e-5)
    changed = {n for n, p in merged.named_parameters() if not torch.equal(p, before[n])}
    wanted = {"qkv" if "qkv" in arch.projection_names() else "v", "up", "down", "o"}
    assert changed == {
        f"{arch.roles.layers}.{k - 1}.{arch.projection_path(name)}.weight" for k in (2, 4) for name in wanted
    }
    again = PeftModel.from_pretrained(tiny_model(arch.model.config.model_type), tmp_path)
    torch.testing.assert_close(logits(again), expected, atol=1e-6, rtol=1e-5)


def test_adapter_requests_are_checked():
    arch = Architecture.of(tiny_model("opt"))
    with pytest.raises(RequestError, match="no projection 'gate'; they have q, k, v, o, up, down"):
        lora_config(arch, [1], ["gate"], rank=2, alpha=2)
    with pytest.raises(RequestError, match="numbered from 1 to 4"):
        lora_config(arch, [5], ["up"], rank=2, alpha=2)
    with pytest.raises(RequestError, match="empty list"):
        lora_config(arch, [], ["up"], rank=2, alpha=2)
