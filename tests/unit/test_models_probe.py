"""What a loaded model is found to be like, against what its architecture is known to do; all with five layers."""

from __future__ import annotations

from functools import cache, partial
from typing import get_args

import pytest
import torch
from torch import nn

from pkt.config import InterfaceName
from pkt.errors import RequestError
from pkt.inventory import damages
from pkt.models import probe as probing
from pkt.models.architecture import Architecture
from pkt.models.findings import INTERFACES
from pkt.models.probe import probe, probed
from pkt.models.taps import Interface, decode, skip_above, skip_below, tap
from pkt.stages.doctor import identity
from tiny import QUIRKS, quirky, tiny_model, tiny_tokenizer

IDS = torch.randint(3, 320, (2, 9), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)
MASK[1, 6:] = 0
REAL = MASK.bool()
NEAR = {"atol": 1e-5, "rtol": 1e-4}  # float32

SUBLAYERS = {"mlp", "attention"}
OFF = {
    "scale in the config that is text": {"mlp"},
    "attention added in place": {"sequential"},
    "residual inside both sublayers": SUBLAYERS,
    "residual inside the MLP": {"mlp"},
    "multipliers": SUBLAYERS,
    "scaled logits, parallel": {"sequential"},
    "norms after the sublayers": SUBLAYERS,
    "parallel, bias on the head": {"sequential"},
    "parallel, fused": {"sequential"},
    "keys and values of earlier layers": SUBLAYERS | {"start"},
    "several streams": SUBLAYERS | {"block", "residual"},
}
QUICK = {
    "scale in the config that nobody uses", "attention added in place", "residual inside both sublayers", "multipliers",
    "soft cap", "norms after the sublayers", "parallel, bias on the head", "keys and values of earlier layers",
}  # fmt: skip
HINTED = {
    "residual inside both sublayers": {
        "attention_out": "self_attention.dense",
        "mlp_out": "mlp.dense_4h_to_h",
    },
    "residual inside the MLP": {"mlp_out": "ffn.down_proj"},
    "norms after the sublayers": {
        "attention_out": "post_attention_layernorm",
        "mlp_out": "post_feedforward_layernorm",
    },
}


@cache
def looked_at(name: str) -> Architecture:
    model, roles = quirky(name)
    arch = Architecture.of(model, roles)
    arch.probe = probe(arch, tiny_tokenizer())
    return arch


@pytest.fixture(
    params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in QUIRKS]
)
def quirk(request) -> str:
    return request.param


def test_what_does_not_hold_is_found_and_nothing_else(quirk):
    found = looked_at(quirk).probe
    assert {check.name for check in found.checks if check.holds is False} == OFF.get(quirk, set())
    assert found.bound == ((4, 5) if "start" in OFF.get(quirk, ()) else ())


@torch.no_grad()
def test_the_read_out_is_the_models_own(quirk):
    arch = looked_at(quirk)
    expected = arch.model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
    torch.testing.assert_close(arch.read_out(decode(arch, IDS, MASK))[REAL], expected[REAL], **NEAR)
    alone = decode(arch, IDS, MASK)[REAL]
    torch.testing.assert_close(arch.read_out(alone), expected[REAL], **NEAR)


@torch.no_grad()
def test_passes_start_and_end_at_every_cut(quirk):
    arch = looked_at(quirk)
    if not arch.probe.check("block").holds:
        pytest.skip("there are no states to start from")
    with tap(arch, range(1, 6), Interface.block) as states:
        whole = decode(arch, IDS, MASK)
    for number in range(1, 6):
        with skip_above(arch, number), tap(arch, [number], Interface.block) as below:
            decode(arch, IDS, MASK)
        torch.testing.assert_close(below[number][REAL], states[number][REAL], **NEAR)
        if number > 1 and arch.starts_at(number):
            with skip_below(arch, number, states[number - 1]):
                torch.testing.assert_close(decode(arch, IDS, MASK)[REAL], whole[REAL], **NEAR)


def test_a_model_that_is_its_own_teacher_has_no_layer_loss(quirk):
    arch = looked_at(quirk)
    if "block" in OFF.get(quirk, ()):
        with pytest.raises(
            RequestError, match="no interface block that pkt can use: layers 1, 2, 3, 4, 5 have states of"
        ):
            identity(arch)
    else:
        assert identity(arch).holds


@torch.no_grad()
def test_what_the_taps_give_adds_up_or_is_refused_by_name(quirk):
    arch = looked_at(quirk)
    both = [
        k
        for k in range(1, 6)
        if k in arch.layers_with("mlp") and k in arch.layers_with(arch.roles.attention_out)
    ]
    refused = SUBLAYERS & OFF.get(quirk, set())
    for name in refused:
        with (
            pytest.raises(RequestError, match=f"no interface {name} that pkt can use"),
            tap(arch, both, name),
        ):
            pass
    if refused or not both:
        return
    entering = {}
    handles = [
        arch.layer(k).register_forward_pre_hook(
            lambda _m, args, kwargs, k=k: entering.update(
                {k: (args[0] if args else kwargs["hidden_states"]).clone()}
            ),
            with_kwargs=True,
        )
        for k in both
    ]
    with tap(arch, both, "attention") as a, tap(arch, both, "mlp") as f, tap(arch, both, "block") as out:
        decode(arch, IDS, MASK)
    for handle in handles:
        handle.remove()
    for k in both:
        torch.testing.assert_close(entering[k] + a[k] + f[k], out[k], **NEAR)


@pytest.mark.parametrize("quirk", list(HINTED))
def test_the_roles_that_a_refusal_names_are_right(quirk):
    model, roles = quirky(quirk)
    message = looked_at(quirk).probe.check("mlp").sentence
    assert all(f"{role}={path}" in message for role, path in HINTED[quirk].items())
    found = probe(Architecture.of(model, roles | HINTED[quirk]))
    assert all(check.holds is not False for check in found.checks)


def test_a_tapped_state_that_its_layer_writes_into_keeps_its_value_and_gradient():
    arch = looked_at("attention added in place")
    with torch.no_grad(), tap(arch, [2], "mlp") as plain:
        decode(arch, IDS, MASK)
    with tap(arch, [2], "mlp", retain_grad=True) as tracked:
        decode(arch, IDS, MASK).square().sum().backward()
    arch.model.zero_grad()
    torch.testing.assert_close(tracked[2], plain[2], **NEAR)
    kept = []
    handle = arch.sublayer_out(2, "mlp").register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    decode(arch, IDS, MASK)
    handle.remove()
    torch.testing.assert_close(plain[2], kept[0], atol=0, rtol=0)
    assert tracked[2].grad.abs().max() > 0


@pytest.mark.slow
def test_layers_without_a_sublayer_are_refused_by_number():
    arch = looked_at("Mamba beside attention")
    assert arch.layers_with("self_attn") == [2, 4]
    with pytest.raises(RequestError, match=r"layer 3 of this bamba model has no attention .*have it: 2, 4\."):
        arch.sublayer_out(3, "attention")
    arch = looked_at("dense layers first, then experts")
    assert "q" not in arch.projection_names()
    with pytest.raises(RequestError, match=r"layer 4 of this deepseek_v3 model has no projection 'gate'"):
        arch.projection(4, "gate")


def test_norms_are_read_as_what_they_do():
    plain = Architecture.of(tiny_model("llama", depth=1))
    weight = plain.model.model.norm.weight
    assert plain.norm_weight() is weight
    assert not plain.norm.centres
    torch.testing.assert_close(
        looked_at("one plus the weight").norm_weight(),
        1 + looked_at("one plus the weight").model.model.norm.weight,
    )
    assert looked_at("no weight in the norm").norm_weight() is None
    assert looked_at("no weight in the norm").norm.centres
    twice = Architecture.of(tiny_model("llama", depth=1))
    twice.model.model.norm.register_forward_hook(lambda _m, _a, out: 2 * out)
    torch.testing.assert_close(twice.norm_weight(), 2 * weight, **NEAR)
    none = Architecture.of(tiny_model("llama", depth=2))
    none.model.model.norm = nn.Linear(32, 32)
    assert probe(none).check("norm_weight").holds is False


def test_a_dead_copy_is_no_interface():
    """A layer that recomputes its MLP functionally: what the module gives adds up, but nobody reads it."""
    model = tiny_model("llama", depth=5)
    layer = model.model.layers[3]

    class Twice(nn.Module):
        def __init__(self, own):
            super().__init__()
            self.shown, self.used = own, [own.forward]

        def forward(self, states):
            self.shown(states)
            return self.used[0](states)

    layer.mlp = Twice(layer.mlp)
    found = probe(Architecture.of(model, {"mlp_out": "mlp.shown", "projections": {}}))
    assert found.check("mlp").holds is False


def test_broken_models_are_refused():
    model = tiny_model("llama", depth=5)
    with torch.no_grad():
        model.model.layers[4].mlp.down_proj.weight[3, 2] = float("nan")
    arch = Architecture.of(model)
    arch.probe = probe(arch)
    with pytest.raises(RequestError, match="NaN or infinite"):
        decode(arch, IDS, MASK)
    mixed = tiny_model("llama", depth=5)
    mixed.model.layers[2].register_forward_hook(lambda _m, _a, out: out + out.mean(1, keepdim=True))
    arch = Architecture.of(mixed)
    arch.probe = probe(arch)
    with pytest.raises(RequestError, match="no causal language model"):
        decode(arch, IDS, MASK)


@pytest.mark.parametrize(
    ("role", "path", "reason"),
    [
        ("head", "other", "no multiple of what its head 'other' returns"),
        ("decoder", "other_model", "not the model's logits"),
    ],
)
def test_a_wrong_read_out_is_refused(role, path, reason):
    model = tiny_model("llama", depth=5)
    model.other = nn.Linear(32, 320)
    model.other_model = tiny_model("llama", depth=5, seed=1).model
    arch = Architecture.of(model, {role: path})
    arch.probe = probe(arch)
    with pytest.raises(RequestError, match=reason):
        arch.read_out(torch.zeros(1, 32))


def test_token_ids_without_a_row_are_counted():
    arch = Architecture.of(tiny_model("llama", vocab=300, depth=2))
    check = probe(arch, tiny_tokenizer(320)).check("tokens")
    assert (check.holds, check.number) == (False, 20.0)
    assert "first 300" in check.sentence


def test_an_error_of_the_probe_is_no_verdict(monkeypatch):
    def fail(*_args):
        raise KeyError("ours")

    monkeypatch.setattr(probing.sublayers, "parts", fail)
    monkeypatch.setattr(probing, "cuts", fail)
    arch = Architecture.of(tiny_model("llama", depth=5))
    arch.probe = probe(arch)
    assert arch.probe.check("mlp").holds is None
    assert "could not be tried (KeyError: 'ours')" in arch.probe.check("mlp").sentence
    with tap(arch, [1], "mlp") as states:
        decode(arch, IDS, MASK)
    assert 1 in states
    assert not arch.starts_at(2)


def test_a_probe_is_kept_and_made_anew_when_it_is_damaged(tmp_path):
    model, roles = quirky("norms after the sublayers")
    runs = []
    model.register_forward_pre_hook(lambda *_: runs.append(1))

    def look(identity="abc", **more):
        arch = Architecture.of(model, roles | more)
        return probed(arch, tiny_tokenizer(), identity, tmp_path / "probes")

    first = look()
    (file,) = (tmp_path / "probes").glob("*.json")
    count = len(runs)
    assert count > 0
    assert look() == first
    assert len(runs) == count
    whole = file.read_text()
    for number, damaged in enumerate(
        (whole[:50], whole.replace('"number": 0.0', '"number": 4.0', 1), "[]"), 2
    ):
        assert damaged != whole
        file.write_text(damaged)
        assert [place for place, _ in damages(tmp_path, [])] == [file]
        assert look() == first
        assert len(runs) == number * count
        assert not list(damages(tmp_path, []))
    assert look(identity="other") == first
    (other,) = set((tmp_path / "probes").iterdir()) - {file}
    other.write_text(whole)
    assert look(identity="other") == first
    assert len(runs) == 6 * count
    assert look(**HINTED["norms after the sublayers"]) != first
    assert len(list((tmp_path / "probes").iterdir())) == 3


def test_what_is_off_is_said_in_one_line(capsys):
    model, roles = quirky("keys and values of earlier layers")
    probed(Architecture.of(model, roles), None, "x", None)
    (line,) = capsys.readouterr().err.splitlines()
    assert "layers 4, 5 give something else from cached states" in line
    assert "cache_prefix" in line


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama", depth=5)
    model.train()
    model.model.norm.requires_grad_(False)
    modes, wanted = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    weights, state = {n: p.clone() for n, p in model.named_parameters()}, torch.get_rng_state()
    probe(Architecture.of(model), tiny_tokenizer())
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(torch.equal(p, weights[n]) and p.grad is None for n, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in model.modules()
    )


def test_dropout_draws_the_same_whether_or_not_somebody_looked():
    drawn = []
    for look in (False, True):
        arch = Architecture.of(tiny_model("gpt2", depth=5))
        arch.model.train()
        torch.manual_seed(0)
        if look:
            assert arch.layer_returns is None
        drawn.append(decode(arch, IDS, MASK))
    torch.testing.assert_close(*drawn, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_fault(dtype):
    arch = Architecture.of(tiny_model("llama", depth=5).to(dtype))
    assert all(check.holds is not False for check in probe(arch).checks)


def test_a_head_that_is_no_matrix_and_layers_that_are_no_list_are_refused():
    model = tiny_model("llama", depth=2)
    of = partial(Architecture.of, model)
    with pytest.raises(
        RequestError, match="role 'head' points to 'model', a LlamaModel without a weight matrix"
    ):
        of({"head": "model"})
    with pytest.raises(
        RequestError, match=r"role 'layers' points to 'model\.norm', a LlamaRMSNorm and no list"
    ):
        of({"layers": "model.norm"})
    with pytest.raises(RequestError, match="role 'embed' is None; a dotted module path is expected"):
        of({"embed": None})
    with pytest.raises(RequestError, match=r"role 'projections\.q' points to 'self_attn\.query'"):
        of({"projections": {"q": "self_attn.query"}})


@pytest.mark.slow
def test_a_model_that_its_config_does_not_fit_is_refused_and_never_all_well():
    model, roles = quirky("Mamba beside attention")
    del model.model.layers[0]  # the layers' kinds are in the config by their numbers
    arch = Architecture.of(model, roles)
    arch.probe = probe(arch)
    assert [check.name for check in arch.probe.checks if check.holds is False] == ["runs"]
    assert arch.probe.check("mlp").sentence == "not tried, because of 'runs'"
    with pytest.raises(
        RequestError, match=r"its own code fails on a batch of 2 rows of 8 tokens \(.*\)\. Its config"
    ):
        decode(arch, IDS, MASK)


def test_interfaces_are_those_that_requests_may_name():
    assert {*Interface} == {*get_args(InterfaceName)} == {*INTERFACES}


def test_a_role_that_points_to_another_embedding_is_refused():
    model = tiny_model("qwen3", depth=3, tied=False)
    arch = Architecture.of(model, {"like": "qwen3", "embed": "lm_head"})
    arch.probe = probe(arch)
    assert arch.probe.check("embedding").holds is False
    with pytest.raises(RequestError, match=r"its role embed \(lm_head\) points to another module"):
        arch.embedding_weight()
    tied = Architecture.of(tiny_model("qwen3", depth=3, tied=True), {"like": "qwen3", "embed": "lm_head"})
    assert probe(tied).check("embedding").holds is True  # the same weights


@pytest.mark.parametrize("path", ["lm_head", "model.layers.0.self_attn.q_norm"])
def test_a_final_norm_that_takes_no_states_is_named(path):
    arch = Architecture.of(tiny_model("qwen3", depth=3), {"like": "qwen3", "final_norm": path})
    arch.probe = probe(arch)
    assert arch.probe.check("final_norm").holds is False
    if path != "lm_head":  # a matrix takes a state, and is no norm
        with pytest.raises(RequestError, match="the role final_norm points to the wrong module"):
            arch.norm_weight()
