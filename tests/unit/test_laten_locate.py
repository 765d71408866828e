"""LaTen's first stage on tiny pairs: what is located, paired, taken and refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from laten_bench import PAIRS, bench_of, made
from pkt.attribution.locate import layer_scores, neuron_scores, observe
from pkt.attribution.neurons import best
from pkt.errors import RequestError
from pkt.methods.laten import LaTen
from pkt.methods.laten_locate import count_of
from pkt.models.architecture import Architecture

__all__ = ["made"]  # the fixture
KINDS = {"up": "ffn", "down": "ffn", "v": "attention", "o": "attention"}


@pytest.mark.parametrize(("family", "teacher", "student"), PAIRS)
def test_extraction_takes_the_best_neurons_of_the_best_layers(made, pair, family, teacher, student):
    root = made(family, teacher, student)
    bench = bench_of(pair, root)
    got = LaTen(rho=0.2).extract(bench, None)
    models = {
        role: Architecture.of(AutoModelForCausalLM.from_pretrained(root / role))
        for role in ("teacher", "student")
    }
    seen = {role: observe(arch, bench.encoded("extract")) for role, arch in models.items()}
    for kind, pairs, scores in (
        ("ffn", got.pairs, got.scores),
        ("attention", got.attention_pairs, got.attention_scores),
    ):
        expected = layer_scores(seen["teacher"], kind)
        torch.testing.assert_close(scores, expected)
        chosen = [p.teacher[0] for p in pairs]
        assert [p.student for p in pairs] == [1, 2, 3, 4]
        assert chosen == sorted(chosen)
        left_out = set(range(1, len(scores) + 1)) - set(chosen)
        assert all(scores[a - 1] >= scores[b - 1] for a in chosen for b in left_out)
        width = bench.student.arch.projection(1, "down" if kind == "ffn" else "o").in_features
        count = int(width * 0.2)
        for i in range(4):
            theirs = best(neuron_scores(models["teacher"], seen["teacher"], chosen[i], kind), count)
            own = best(neuron_scores(models["student"], seen["student"], i + 1, kind), count)
            assert torch.equal(got.teacher_neurons[kind][i], theirs)
            assert torch.equal(got.student_neurons[kind][i], own)
            check_sources(models["teacher"].layer(chosen[i]), got, kind, i)


def check_sources(layer, got, kind, i):
    config = layer.self_attn.config
    for rank, neuron in enumerate(got.teacher_neurons[kind][i].tolist()):
        if kind == "ffn":
            row, column = layer.mlp.up_proj.weight[neuron], layer.mlp.down_proj.weight[:, neuron]
            names = "up", "down"
        else:
            size = layer.self_attn.head_dim
            head, channel = divmod(neuron, size)
            group = config.num_attention_heads // config.num_key_value_heads
            row = layer.self_attn.v_proj.weight[(head // group) * size + channel]
            column, names = layer.self_attn.o_proj.weight[:, neuron], ("v", "o")
        assert torch.equal(got.sources[names[0]][i, rank], row)
        assert torch.equal(got.sources[names[1]][i, rank], column)


def test_both_models_run_once_over_the_extract_rows(made, pair):
    bench = bench_of(pair, made())
    got = LaTen().extract(bench, None)
    tokens = sum(bench.encoded("extract").lengths) - 2 * 3  # without y and EOS
    assert bench.teacher_meter.forward_tokens == tokens
    assert bench.student_meter.forward_tokens == got.student_forward_tokens == tokens


def test_a_row_of_values_that_neurons_share_goes_to_the_best(made, pair):
    bench = bench_of(pair, made(student={"num_key_value_heads": 1}))
    got = LaTen(rho=0.5).extract(bench, None)
    sites = {(site.layer, site.module): site for site in got.sites()}
    assert set(sites) == {(layer, module) for layer in range(1, 5) for module in KINDS}
    shared = 0
    for layer in range(1, 5):
        neurons = got.student_neurons["attention"][layer - 1].tolist()
        rows = [neuron % 8 for neuron in neurons]  # one head of 8 values serves all four heads
        site = sites[layer, "v"]
        assert sorted(site.index_n.tolist()) == sorted(set(rows))
        for row, source in zip(site.index_n.tolist(), site.sources_nD, strict=True):
            assert torch.equal(source, got.sources["v"][layer - 1, rows.index(row)])
        shared += len(rows) - len(set(rows))
        for module in ("up", "down", "o"):
            assert torch.equal(sites[layer, module].sources_nD, got.sources[module][layer - 1])
    assert shared > 0


def test_a_smaller_share_is_the_beginning_of_a_larger_one(made, pair):
    bench = bench_of(pair, made())
    large, small = LaTen(rho=0.5).extract(bench, None), LaTen(rho=0.1).extract(bench, None)
    for a, b in zip(large.sites(), small.sites(), strict=True):
        count = len(b.index_n)
        assert (a.layer, a.module) == (b.layer, b.module)
        assert torch.equal(a.index_n[:count], b.index_n)
        assert torch.equal(a.sources_nD[:count], b.sources_nD)


def test_numbers_of_neurons():
    assert count_of(11008, 0.1) == 1100
    assert count_of(100, 0.29) == 29  # 100 * 0.29 is 28.999999999999996
    assert count_of(9, 0.1) == 0


@pytest.mark.parametrize(
    ("family", "teacher", "student", "rho", "reason"),
    [
        ("gpt2", {}, {}, 0.1, "teacher .* no projection gate"),
        ("gemma3_text", {}, {}, 0.1, "teacher .* norm follows its sublayers"),
        ("llama", {"depth": 3}, {"depth": 4}, 0.1, "student's 4 layers .* which has 3"),
        ("llama", {}, {}, 0.02, r"rho=0.02 of the student's 32 attention neurons per layer is none"),
        ("llama", {"width": 16}, {"width": 32}, 0.9, r"student's 64 ffn .* is 57, and the teacher has 32"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_before_weights_are_read(
    made, pair, family, teacher, student, rho, reason
):
    bench = bench_of(pair, made(family, teacher, student))
    with pytest.raises(RequestError, match=reason):
        LaTen(rho=rho).extract(bench, None)
    assert "teacher" not in bench.__dict__
    assert "student" not in bench.__dict__
