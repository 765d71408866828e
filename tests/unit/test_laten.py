"""LaTen on tiny pairs: what is learned, chosen and really saved."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from laten_bench import PAIRS, bench_of, made
from pkt.build import build
from pkt.errors import RequestError
from pkt.methods.laten import LaTen
from pkt.methods.laten_results import LatenAlignment, LatenExtraction

__all__ = ["made"]  # the fixture
STRONG = {"lr": 0.01, "rho": 0.25}  # a delta that shows on models this small


def run(method, bench):
    extraction = method.extract(bench, None)
    return extraction, method.align(bench, extraction, None)


def loss_of(model, encoded):
    """Mean cross-entropy over all answer tokens, row by row through the whole model."""
    losses = []
    for ids, prompt in zip(encoded.input_ids, encoded.prompt_lengths, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].float()
        losses.append(
            functional.cross_entropy(logits[prompt - 1 : -1], torch.tensor(ids[prompt:]), reduction="none")
        )
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize(("family", "teacher", "student"), PAIRS)
def test_the_saved_student_holds_the_delta(made, pair, tmp_path, family, teacher, student):
    root = made(family, teacher, student)
    bench = bench_of(pair, root)
    method = LaTen(**STRONG, steps=3)
    _, alignment = run(method, bench)
    before = load_file(root / "student" / "model.safetensors")
    for name, value in bench.student.model.state_dict().items():  # aligning leaves the student alone
        if name in before:
            assert torch.equal(value, before[name])
    transferred = method.transfer(bench, alignment, None)
    assert transferred.layers == (1, 2, 3, 4)
    assert transferred.trainable.parameters == {}
    transferred.trainable.merged().save_pretrained(tmp_path / "model")
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert set(after) == set(before)
    expected = {name: torch.zeros_like(value) for name, value in before.items()}
    paths = bench.student.arch.roles.projections
    for delta in alignment.deltas:
        change = expected[f"model.layers.{delta.layer - 1}.{paths[delta.module]}.weight"]
        if delta.module in ("up", "v"):
            change[delta.index_n] = delta.values_nD
        else:
            change[:, delta.index_n] = delta.values_nD.T
    for name, value in after.items():
        torch.testing.assert_close(value - before[name], expected[name], rtol=0, atol=1e-6)
    norm = float(torch.cat([(after[n] - before[n]).flatten() for n in after]).norm())
    assert norm > 1e-2
    assert transferred.budget["delta_norm"] == pytest.approx(norm, rel=1e-3)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    validation = loss_of(reloaded, bench.encoded("validation"))
    assert alignment.validation == pytest.approx(validation, abs=2e-4)
    untouched = loss_of(AutoModelForCausalLM.from_pretrained(root / "student"), bench.encoded("validation"))
    assert alignment.untouched == pytest.approx(untouched, abs=2e-4)
    assert abs(validation - untouched) > 1e-3


def test_a_list_of_settings_is_a_sweep():
    node = OmegaConf.create({"_target_": "pkt.methods.laten.LaTen", "lr": [1e-5, 3e-5]})
    with pytest.raises(RequestError, match=r"one value is expected .*`pkt run -m .*lr=1e-05,3e-05`"):
        build(node)


def test_two_runs_are_equal_and_another_seed_is_not(made, pair):
    method = LaTen(**STRONG)
    results = []
    for seed in (0, 0, 1):
        bench = bench_of(pair, made())
        bench.config.seed = seed
        results.append(run(method, bench)[1].deltas)
    for a, b, c in zip(*results, strict=True):
        assert torch.equal(a.values_nD, b.values_nD)
        assert not torch.equal(a.values_nD, c.values_nD)


def test_micro_batches_change_nothing_but_rounding(made, pair):
    # at Adam's scale a gradient near zero turns rounding into a step, so losses are compared, not weights
    whole = run(LaTen(**STRONG), bench_of(pair, made()))[1]
    parts = run(LaTen(**STRONG), bench_of(pair, made(), optim={"micro_batch_size": 5}))[1]
    assert len(parts.losses) == 4
    assert parts.losses == pytest.approx(whole.losses, abs=2e-4)
    assert parts.losses[0] == pytest.approx(whole.losses[0], abs=1e-5)
    assert parts.validation == pytest.approx(whole.validation, abs=2e-4)


def test_a_heavy_penalty_keeps_the_delta_small(made, pair):
    bench = bench_of(pair, made())
    light, heavy = (
        run(LaTen(rho=0.25, lr=0.01, steps=6, penalty=penalty), bench)[1].norm("delta")
        for penalty in (0.0, 1e6)
    )
    assert heavy < 0.5 * light


def test_a_bfloat16_pair(made, pair, tmp_path):
    bench = bench_of(pair, made("qwen3"), dtype="bfloat16")
    method = LaTen(**STRONG)
    extraction, alignment = run(method, bench)
    assert {t.dtype for t in extraction.sources.values()} == {torch.bfloat16}
    assert {d.values_nD.dtype for d in alignment.deltas} == {torch.float32}
    before = {name: value.clone() for name, value in bench.student.model.state_dict().items()}
    method.transfer(bench, alignment, None).trainable.merged().save_pretrained(tmp_path)
    after = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    for delta in alignment.deltas:
        path = bench.student.arch.roles.projections[delta.module]
        name = f"model.layers.{delta.layer - 1}.{path}.weight"
        old, new = (w if delta.module in ("up", "v") else w.T for w in (before[name], after[name]))
        expected = (old[delta.index_n].float() + delta.values_nD).bfloat16()
        assert torch.equal(new[delta.index_n], expected)


def test_a_delta_that_rounding_swallows_is_told(made, pair):
    bench = bench_of(pair, made(), dtype="bfloat16")
    _, alignment = run(LaTen(lr=1e-9), bench)
    notes = "\n".join(alignment.warnings())
    assert "bfloat16 weights do not hold the delta" in notes
    assert "does not lower the student's validation cross-entropy" in notes


def test_the_papers_learning_rate_is_told_to_do_nothing_on_a_narrow_pair(made, pair):
    _, alignment = run(LaTen(), bench_of(pair, made()))
    assert any("changes next to nothing; raise method.lr" in note for note in alignment.warnings())


def test_a_delta_that_helps_is_no_warning(made, pair):
    _, alignment = run(LaTen(rho=0.5, lr=0.01, steps=8), bench_of(pair, made()))
    assert alignment.validation < alignment.untouched
    assert alignment.warnings() == []


def test_results_survive_saving(made, pair, tmp_path):
    extraction, alignment = run(LaTen(**STRONG, steps=2), bench_of(pair, made("qwen3")))
    for result, name in ((extraction, "extraction"), (alignment, "alignment")):
        (tmp_path / name).mkdir()
        result.save(tmp_path / name)
    one, two = LatenExtraction.load(tmp_path / "extraction"), LatenAlignment.load(tmp_path / "alignment")
    for name in (
        "pairs",
        "attention_pairs",
        "scores",
        "attention_scores",
        "student",
        "student_forward_tokens",
    ):
        assert getattr(one, name) == getattr(extraction, name)
    for name in ("teacher_neurons", "student_neurons", "sources"):
        got, expected = getattr(one, name), getattr(extraction, name)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[key], expected[key]) for key in expected)
    assert replace(two, deltas=()) == replace(alignment, deltas=())
    for a, b in zip(two.deltas, alignment.deltas, strict=True):
        assert (a.layer, a.module) == (b.layer, b.module)
        assert torch.equal(a.index_n, b.index_n)
        assert torch.equal(a.values_nD, b.values_nD)
    assert one.warnings() == []
    for table in (*one.tables(), *two.tables()):
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_plan_of_a_step():
    steps = LaTen(steps=8).plan(80, 20, seed=0)
    for rows in steps:
        assert len(rows) == 16
        assert len(set(rows)) == 16
        assert sum(row >= 80 for row in rows) == 1
    assert steps[:3] == LaTen(steps=3).plan(80, 20, seed=0)
    assert steps != LaTen(steps=8).plan(80, 20, seed=1)
    assert len({row for rows in steps[:5] for row in rows if row < 80}) == 75  # a round sees each row once
    assert [len(rows) for rows in LaTen(steps=2).plan(4, 1, seed=0)] == [5, 5]
    alone = LaTen(steps=2, extract_rows=0).plan(4, 9, seed=0)
    assert all(row < 4 for rows in alone for row in rows)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rho": 0.0},
        {"rho": 1.5},
        {"steps": 0},
        {"lr": 0.0},
        {"lr": -1.0},
        {"weight_decay": -0.1},
        {"penalty": -1.0},
        {"align_rows": 0},
        {"extract_rows": -1},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LaTen(**wrong)


def test_from_the_shell_to_a_folder_that_loads(pkt, tiny_request, pair):
    words = ["method=laten", "method.steps=2", "method.lr=0.01", *tiny_request]
    for verb, shown in (("extract", "I_ffn"), ("align", "validation CE"), ("transfer", "checkpoint")):
        result = pkt(verb, *words)
        assert result.code == 0, result.err
        assert shown in result.out
    (folder,) = (pkt.outputs / "store" / "transfer").glob("*/model")
    before, after = load_file(pair["student"] / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[-2] for name in changed} == {"up_proj", "down_proj", "v_proj", "o_proj"}
    assert len(changed) == 16
    budget = json.loads((folder.parent / "metrics.json").read_text())["budget"]
    assert budget["delta_norm"] > 0
    assert budget["student_forward_tokens"] > 0  # also where the alignment was reused
    assert 0 < budget["delta_norm_relative"] < 1
