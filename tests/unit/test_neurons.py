"""Neuron attribution against a recomputation of the layer by hand, one neuron at a time."""

from __future__ import annotations

import pytest
import torch

from pkt.attribution import locate
from pkt.attribution.locate import affordable_rows, layer_scores, neuron_scores, observe
from pkt.attribution.neurons import ReadOut, best, neuron_gains, norm_divisor, state_gains
from pkt.data.encoding import Encoded
from pkt.errors import PktError, RequestError
from pkt.models.architecture import Architecture
from pkt.models.internals import check_neurons, internals, neuron_shape
from textbook.neurons import slow
from tiny import tiny_model

TIGHT = {"rtol": 1e-4, "atol": 2e-6}
LENGTHS, PROMPTS = (9, 5, 12, 7), (3, 3, 11 - 1, 1)


def encoded(count=4):
    ids = [
        [*torch.randint(3, 300, (LENGTHS[r] - 1,), generator=torch.Generator().manual_seed(r)).tolist(), 2]
        for r in range(count)
    ]
    return Encoded(input_ids=ids, prompt_lengths=list(PROMPTS[:count]))


def fast(arch, rows, **options):
    observed = observe(arch, rows, **options)
    attention, ffn = (layer_scores(observed, kind) for kind in ("attention", "ffn"))
    return [
        [
            torch.tensor([attention[number - 1]]),
            torch.tensor([ffn[number - 1]]),
            neuron_scores(arch, observed, number, "attention"),
            neuron_scores(arch, observed, number, "ffn"),
        ]
        for number in range(1, arch.depth + 1)
    ]


def compare(got, expected, **tolerance):
    for layer, (one, other) in enumerate(zip(got, expected, strict=True), start=1):
        for what, a, b in zip(("I_attn", "I_ffn", "attention", "ffn"), one, other, strict=True):
            torch.testing.assert_close(a, b, **tolerance, msg=lambda m, w=what, n=layer: f"{w} of {n}: {m}")


FAMILIES = [
    ("llama", {}),
    ("llama", {"tied": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 4}),
    ("llama", {"num_key_value_heads": 1}),
    ("qwen3", {"head_dim": 12}),
    ("qwen2", {}),
    ("mistral", {"sliding_window": 4}),
]


@pytest.mark.parametrize(("family", "sizes"), FAMILIES)
def test_equals_a_loop_over_neurons(family, sizes):
    model = tiny_model(family, depth=2, **sizes)
    got = fast(Architecture.of(model), encoded())
    compare(got, slow(model, encoded()), **TIGHT)
    assert float(got[0][3].abs().max()) > 1e-2  # tiny models, but no trivial numbers


def test_one_row_and_the_legacy_divisor():
    model = tiny_model("llama", depth=2)
    arch = Architecture.of(model)
    compare(fast(arch, encoded(1)), slow(model, encoded(1)), **TIGHT)
    compare(fast(arch, encoded(2), legacy_norm=True), slow(model, encoded(2), legacy=True), **TIGHT)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_bfloat16(family):
    model = tiny_model(family, depth=2)
    exact = fast(Architecture.of(model), encoded())
    half = fast(Architecture.of(model.bfloat16()), encoded())
    assert all(score.dtype == torch.float32 for layer in half for score in layer)
    for one, other in zip(half, exact, strict=True):
        for a, b in zip(one[2:], other[2:], strict=True):
            assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.98


@pytest.mark.parametrize("at_once", [1, 3])
def test_batches_and_padding_do_not_matter(at_once, monkeypatch):
    arch = Architecture.of(tiny_model("qwen3", depth=2))
    whole = fast(arch, encoded())
    monkeypatch.setattr(locate, "ROWS_AT_ONCE", at_once)
    compare(fast(arch, encoded()), whole, **TIGHT)


def test_the_final_state_reads_out_as_the_model_does(monkeypatch):
    monkeypatch.setattr(locate, "ROWS_AT_ONCE", 1)
    model = tiny_model("llama", depth=2)
    arch, rows = Architecture.of(model), encoded()
    observed = observe(arch, rows)
    last = observed.layers[-1]
    got = observed.read_out.log_probs(last.entering_BD + last.attention_BD + last.ffn_BD)
    order = sorted(range(4), key=lambda row: -LENGTHS[row])
    with torch.no_grad():
        for place, row in enumerate(order):
            ids = rows.input_ids[row]
            assert int(observed.read_out.target_R[place]) == ids[-2]
            logits = model(input_ids=torch.tensor([ids[:-2]])).logits[0, -1]
            torch.testing.assert_close(got[place], logits.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_long_rows_go_through_eager_attention_one_by_one():
    arch = Architecture.of(tiny_model("llama", depth=1))  # 4 heads
    assert [affordable_rows(arch, length) for length in (10, 2048, 4096, 32768)] == [8, 8, 2, 1]


def test_neurons_add_up_to_their_sublayer():
    arch = Architecture.of(tiny_model("qwen3", depth=3))
    ids = torch.tensor([encoded().input_ids[2]])
    first, _ = internals(arch, ids[:, :1], torch.ones_like(ids[:, :1]), torch.tensor([0]))
    for number, layer in enumerate(first, start=1):  # at the first position, the own value is all there is
        for module, neurons, total in (
            ("down", layer.ffn_neurons_BI, layer.ffn_BD),
            ("o", layer.own_values_BK, layer.attention_BD),
        ):
            weight = arch.projection(number, module).weight.detach()
            torch.testing.assert_close(neurons @ weight.T, total, rtol=1e-4, atol=1e-5)


def test_later_positions_and_padding_are_not_read():
    arch = Architecture.of(tiny_model("llama", depth=2))
    ids = torch.tensor([encoded().input_ids[0]])
    longer, _ = internals(arch, ids, torch.ones_like(ids), torch.tensor([4]))
    shorter, _ = internals(arch, ids[:, :5], torch.ones_like(ids[:, :5]), torch.tensor([4]))
    for a, b in zip(longer, shorter, strict=True):
        torch.testing.assert_close(a.own_values_BK, b.own_values_BK, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(a.ffn_neurons_BI, b.ffn_neurons_BI, rtol=1e-4, atol=1e-5)


def test_chunks_and_a_head_bias(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    weight, columns, before, acts = (
        torch.randn(shape, generator=generator) for shape in ((50, 8), (11, 8), (3, 8), (3, 11))
    )
    read_out = ReadOut(
        weight_VD=weight,
        divisor_R=torch.tensor([1.0, 2.0, 0.5]),
        target_R=torch.tensor([4, 0, 49]),
        bias_V=torch.randn(50, generator=generator),
    )
    whole = neuron_gains(read_out, before, columns, acts)
    for numbers in (1, 200):
        monkeypatch.setattr("pkt.attribution.neurons.CHUNK_NUMBERS", numbers)
        torch.testing.assert_close(neuron_gains(read_out, before, columns, acts), whole)
    for j in range(11):
        expected = state_gains(read_out, before, acts[:, j, None] * columns[j]).mean()
        torch.testing.assert_close(whole[j], expected, rtol=1e-4, atol=1e-6)


def test_large_contributions_stay_finite():
    read_out = ReadOut(
        weight_VD=torch.eye(4), divisor_R=torch.ones(1), target_R=torch.tensor([1]), bias_V=None
    )
    gains = neuron_gains(read_out, torch.zeros(1, 4), 1e4 * torch.eye(4), torch.ones(1, 4))
    assert gains.isfinite().all()
    assert float(gains[1]) == pytest.approx(torch.log(torch.tensor(4.0)).item(), abs=1e-6)


def test_divisors():
    state = torch.tensor([[3.0, -1.0, 2.0, 0.0]])
    assert float(norm_divisor(state, eps=0.5)) == pytest.approx(4.0**0.5)
    assert float(norm_divisor(state, eps=0.5, legacy=True)) == pytest.approx(float(state.std()) ** 0.5)


def test_ranking():
    assert best(torch.tensor([0.1, 0.5, 0.5, -1.0]), 3).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="cannot be chosen"):
        best(torch.zeros(2), 3)
    with pytest.raises(ValueError, match="NaN"):
        best(torch.tensor([0.0, float("nan")]), 1)


def test_value_rows():
    shape = neuron_shape(tiny_model("llama", depth=1).config)  # 4 heads of 8 over 2 key and value heads
    assert (shape.ffn, shape.attention, shape.group) == (64, 32, 2)
    assert shape.value_rows(torch.tensor([0, 7, 8, 15, 16, 31])).tolist() == [0, 7, 0, 7, 8, 15]


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gemma2", "a norm follows its sublayers"),
        ("gemma3_text", "a norm follows its sublayers"),
        ("gpt2", "no projection gate, v"),
        ("gpt_neox", "no projection gate, v"),
        ("opt", "no projection gate"),
    ],
)
def test_families_whose_neurons_do_not_add_up_are_refused(family, reason):
    arch = Architecture.of(tiny_model(family, depth=1))
    with pytest.raises(RequestError, match=f"the teacher .*{reason}"):
        check_neurons(arch.model.config, arch.roles, "teacher")


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_families_that_are_accepted(family):
    arch = Architecture.of(tiny_model(family, depth=1))
    check_neurons(arch.model.config, arch.roles, "student")


def test_a_layer_that_is_no_sum_is_refused():
    model = tiny_model("llama", depth=1)
    handle = model.model.layers[0].register_forward_hook(lambda _m, _a, out: 1.5 * out)
    with pytest.raises(RequestError, match="layer 1 is not the sum"):
        observe(Architecture.of(model), encoded())
    handle.remove()


def test_attention_that_hides_its_weights_is_refused():
    model = tiny_model("llama", depth=1)
    handle = model.model.layers[0].self_attn.register_forward_hook(lambda _m, _a, out: (out[0], None))
    with pytest.raises(RequestError, match="returns no attention weights"):
        observe(Architecture.of(model), encoded())
    handle.remove()


def test_rows_without_an_answer_are_refused():
    arch = Architecture.of(tiny_model("llama", depth=1))
    with pytest.raises(RequestError, match=r"row 2 .* no token besides EOS"):
        observe(arch, Encoded(input_ids=[[5, 6, 2], [5, 6, 2]], prompt_lengths=[1, 2]))
    with pytest.raises(RequestError, match="extract split is empty"):
        observe(arch, Encoded(input_ids=[], prompt_lengths=[]))


def test_scores_that_are_not_finite_are_an_error():
    model = tiny_model("llama", depth=1)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    arch = Architecture.of(model)
    observed = observe(arch, encoded())
    with pytest.raises(PktError, match="NaN or infinite"):
        layer_scores(observed, "ffn")
    with pytest.raises(PktError, match="NaN or infinite"):
        neuron_scores(arch, observed, 1, "attention")


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama", depth=2)
    before = model.config._attn_implementation
    assert before != "eager"
    tokens = []
    observe(Architecture.of(model), encoded(), listen=lambda rows, count: tokens.append((rows, count)))
    assert model.config._attn_implementation == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert tokens == [(4, sum(LENGTHS) - 8)]
