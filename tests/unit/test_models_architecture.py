"""Every family: the parts are where the roles say, and reading or cutting the forward pass is exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config

from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.pass_through import PassThrough
from pkt.models.roles import ROLES, roles_of
from pkt.models.taps import Interface, decode, skip_above, skip_below, tap
from tiny import FAMILIES, tiny_config, tiny_model

SUM = {"atol": 5e-6, "rtol": 1e-5}  # float32, one rounding per addition
PADDED = {"atol": 2e-5, "rtol": 1e-4}  # float32, attention over another number of positions

IDS = torch.randint(3, 320, (2, 12), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[1, 7:] = 0
TOKENS = MASK.bool()


def build(family: str, **sizes) -> Architecture:
    extra = {"final_logit_softcapping": 5.0} if family == "gemma2" else {}
    return Architecture.of(tiny_model(family, tied=family.startswith("gemma"), **extra, **sizes))


@pytest.fixture(params=FAMILIES)
def arch(request) -> Architecture:
    return build(request.param)


def test_parts_are_read_from_the_model(arch):
    assert (arch.depth, arch.width, arch.vocab_size) == (4, 32, 320)
    assert arch.head_weight().shape == arch.embedding_weight().shape == (320, 32)
    assert arch.tied == arch.model.config.tie_word_embeddings
    assert arch.layer(1) is arch.layers[0]
    assert arch.layer(4) is arch.layers[3]
    for name in arch.projection_names():
        assert arch.projection(2, name).weight.dim() == 2


@pytest.mark.parametrize("number", [0, 5, -1])
def test_layers_out_of_range_are_refused(arch, number):
    with pytest.raises(RequestError, match="numbered from 1 to 4"):
        arch.layer(number)


@torch.no_grad()
def test_decode_and_read_out_are_the_model(arch):
    logits = arch.model(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(arch.read_out(decode(arch, IDS, MASK)), logits, atol=0, rtol=0)


@torch.no_grad()
def test_norm_weight_carries_its_offset(arch):
    weight = arch.norm_weight()
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    normed = arch.final_norm(states) - (
        getattr(arch.final_norm, "bias", None) if hasattr(arch.final_norm, "bias") else 0
    )
    centred = states - states.mean(-1, keepdim=True) if hasattr(arch.final_norm, "bias") else states
    torch.testing.assert_close(
        normed, weight * centred / centred.square().mean(-1, keepdim=True).sqrt(), atol=1e-3, rtol=1e-3
    )


@torch.no_grad()
def test_sublayers_add_up_to_the_residual(arch):
    states = {}
    for interface in Interface:
        with tap(arch, [1, 2, 4], interface) as found:
            decode(arch, IDS, MASK)
        states[interface] = found
    reference = arch.model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    for k in (1, 2, 4):
        total = states["mlp"][k] + states["attention"][k]
        torch.testing.assert_close(states["residual"][k], total, **SUM)
        assert states["mlp"][k].shape == (2, 12, 32)
    torch.testing.assert_close(states["block"][1], reference[1], atol=0, rtol=0)
    torch.testing.assert_close(states["residual"][2], reference[2] - reference[1], atol=0, rtol=0)
    torch.testing.assert_close(arch.final_norm(states["block"][4]), reference[4], atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("first", [1, 2, 4])
def test_skip_below_is_exact(arch, first):
    with tap(arch, range(1, 5), Interface.block) as states:
        whole = decode(arch, IDS, MASK)
    entering = arch.model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[
        first - 1
    ]
    with skip_below(arch, first, entering), tap(arch, [first], Interface.residual) as residual:
        cut = decode(arch, torch.zeros_like(IDS), MASK)
    torch.testing.assert_close(cut, whole, atol=0, rtol=0)
    torch.testing.assert_close(residual[first], states[first] - entering, atol=0, rtol=0)


@torch.no_grad()
def test_skip_above_stops_at_the_layer(arch):
    with tap(arch, [2], Interface.block) as states:
        whole = decode(arch, IDS, MASK)
        with skip_above(arch, 2):
            below = states[2].clone()
            stopped = decode(arch, IDS, MASK)
    torch.testing.assert_close(states[2], below, atol=0, rtol=0)
    torch.testing.assert_close(stopped, arch.final_norm(below), atol=0, rtol=0)
    torch.testing.assert_close(decode(arch, IDS, MASK), whole, atol=0, rtol=0)


def test_cuts_nest_and_are_undone_after_an_error(arch):
    before, names = list(arch.layers), list(arch.model.state_dict())
    states = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(2))

    def fail_inside() -> None:
        with skip_above(arch, 3), skip_below(arch, 3, states), skip_below(arch, 2, states):
            assert isinstance(arch.layers[0], PassThrough)
            assert not list(arch.layers[3].parameters())
            with tap(arch, [3], Interface.mlp):
                raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert list(arch.layers) == before
    assert list(arch.model.state_dict()) == names
    hooks = [m for m in arch.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks


@pytest.mark.parametrize("interface", list(Interface))
def test_states_and_gradients_do_not_see_padding(arch, interface):
    def gradients(ids, mask):
        with tap(arch, [2, 3], interface, retain_grad=True) as states:
            logits = arch.read_out(decode(arch, ids, mask))
        logits[mask.bool()].square().sum().backward()
        return states

    padded, alone = gradients(IDS, MASK), gradients(IDS[1:, :7], MASK[1:, :7])
    for k in (2, 3):
        torch.testing.assert_close(padded[k][1:, :7], alone[k], **PADDED)
        torch.testing.assert_close(padded[k].grad[1:, :7], alone[k].grad, atol=1e-3, rtol=1e-3)
        assert padded[k].grad[1, 7:].abs().max() == 0


@pytest.mark.parametrize("interface", list(Interface))
@pytest.mark.parametrize("frozen", [False, True])
def test_retained_gradients_are_the_derivative(arch, interface, frozen):
    """Directional derivative: adding eps * d to the tapped state changes the loss by eps * <grad, d>."""
    arch.model.requires_grad_(not frozen)
    arch.model.double()
    reference = arch.model(input_ids=IDS, attention_mask=MASK).logits
    with tap(arch, [1, 3], interface, retain_grad=True) as states:
        logits = arch.read_out(decode(arch, IDS, MASK))
    torch.testing.assert_close(logits, reference, atol=0, rtol=0)
    logits[TOKENS].square().mean().backward()
    direction = torch.randn(2, 12, 32, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    expected = (states[3].grad * direction).sum()

    def loss(eps: float) -> torch.Tensor:
        module = arch.sublayer_out(3, interface.value) if interface in ("mlp", "attention") else arch.layer(3)

        def shift(_m, _a, output):
            out = output[0] if isinstance(output, tuple) else output
            moved = out + eps * direction.reshape(out.shape)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        handle = module.register_forward_hook(shift)
        with torch.no_grad():
            value = arch.read_out(decode(arch, IDS, MASK))[TOKENS].square().mean()
        handle.remove()
        return value

    # RMS norms compute in float32 whatever the model's dtype; OPT does not, and its ReLU has kinks
    eps = 1e-5 if arch.model.config.model_type == "opt" else 1e-3
    slope = (loss(eps) - loss(-eps)) / (2 * eps)
    torch.testing.assert_close(slope, expected, atol=1e-4, rtol=1e-2)


def test_parameter_gradients_are_unchanged_by_taps(arch):
    def parameter_gradients(**options):
        arch.model.zero_grad()
        with tap(arch, [1, 2, 3, 4], Interface.residual, **options):
            arch.read_out(decode(arch, IDS, MASK))[TOKENS].square().mean().backward()
        return {n: p.grad.clone() for n, p in arch.model.named_parameters() if p.grad is not None}

    plain, tracked = parameter_gradients(), parameter_gradients(retain_grad=True)
    assert plain.keys() == tracked.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(tracked[name], gradient, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_bfloat16(arch):
    arch.model.to(torch.bfloat16)
    assert arch.dtype == torch.bfloat16
    for interface in Interface:
        with tap(arch, [2], interface) as states:
            final = decode(arch, IDS, MASK)
        assert states[2].dtype == torch.bfloat16
        assert states[2].isfinite().all()
    assert arch.read_out(final.float()).dtype == torch.bfloat16


def test_no_graph_under_no_grad():
    arch = build("llama")
    with torch.no_grad(), tap(arch, [1], Interface.mlp, retain_grad=True) as states:
        decode(arch, IDS, MASK)
    assert not states[1].requires_grad


def test_gemma3_with_a_vision_tower():
    text = tiny_config("gemma3_text", tied=True)
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    arch = Architecture.of(model)
    assert (arch.depth, arch.width, arch.vocab_size) == (4, 32, 320)
    with torch.no_grad():
        logits = model(input_ids=IDS, attention_mask=MASK).logits
        torch.testing.assert_close(arch.read_out(decode(arch, IDS, MASK)), logits, atol=0, rtol=0)


def test_logit_scales():
    """A model that uses its config's scale is read out with it, and one that does not is not."""
    states = torch.randn(3, 32)
    unused = build("llama", logit_scale=0.25)
    torch.testing.assert_close(unused.read_out(states), unused.head(states))
    sizes = {"num_key_value_heads": 2, "intermediate_size": 64}
    used = Architecture.of(tiny_model("cohere", logit_scale=0.25, **sizes), {"like": "llama"})
    torch.testing.assert_close(used.read_out(states), 0.25 * used.head(states))


def test_head_bias():
    arch = build("llama")
    assert arch.head_bias is None
    arch.model.lm_head.bias = torch.nn.Parameter(torch.ones(320))
    assert arch.head_bias is arch.model.lm_head.bias


def test_opt_without_final_norm_and_opt_350m():
    arch = build("opt", do_layer_norm_before=False)
    assert arch.norm_weight() is None
    with torch.no_grad():
        logits = arch.model(input_ids=IDS, attention_mask=MASK).logits
        torch.testing.assert_close(arch.read_out(decode(arch, IDS, MASK)), logits, atol=0, rtol=0)
    with pytest.raises(RequestError, match="OPT-350m"):
        build("opt", word_embed_proj_dim=16)


def test_unknown_type_names_the_missing_roles():
    model = tiny_model("llama")
    model.config.model_type = "novel"
    with pytest.raises(RequestError, match=r"not declared: decoder, .*model\.teacher\.roles\.layers="):
        Architecture.of(model)
    known = ROLES["llama"]
    declared = {role: getattr(known, role) for role in ("decoder", "layers", "embed", "final_norm")}
    with pytest.raises(RequestError, match="not declared: attention, mlp"):
        Architecture.of(model, declared)
    arch = Architecture.of(model, declared | {"attention": "self_attn", "mlp": "mlp"})
    assert arch.roles.mlp_out == "mlp"
    with pytest.raises(RequestError, match="no projection 'up'; they have none"):
        arch.projection(1, "up")
    with pytest.raises(RequestError, match="mlp_out"):
        Architecture.of(model, declared | {"attention": "self_attn", "mlp": None})


def test_an_unknown_type_is_like_a_known_one_but_for_what_is_declared():
    config = tiny_config("olmo2", num_key_value_heads=2, intermediate_size=64)
    with pytest.raises(RequestError, match="does not know the model type 'olmo2'"):
        roles_of(config)
    norms = {"attention_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"}
    assert roles_of(config, {"like": "llama", **norms}) == replace(ROLES["llama"], **norms)
    with pytest.raises(RequestError, match="does not know the model type 'lama'"):
        roles_of(config, {"like": "lama"})


def test_declared_roles_are_checked():
    model = tiny_model("llama")
    with pytest.raises(RequestError, match="did you mean 'layers'"):
        Architecture.of(model, {"layer": "model.layers"})
    with pytest.raises(RequestError, match=r"role 'mlp_out' points to 'mlp\.fc9'"):
        Architecture.of(model, {"mlp_out": "mlp.fc9"})
    assert Architecture.of(model, {"mlp_out": "mlp.down_proj"}).sublayer_out(1, "mlp").out_features == 32


def test_offloaded_head_is_refused():
    arch = build("llama")
    arch.model.lm_head.to("meta")
    with pytest.raises(RequestError, match="device_map"):
        arch.head_weight()
