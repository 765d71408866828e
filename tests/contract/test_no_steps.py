"""Zero optimiser steps leave the student as it is, bit for bit; LaTen adds what its first hypernetwork gives."""

from __future__ import annotations

import pytest
import torch
from matrix import METHODS
from safetensors.torch import load_file

from cases import mostly_slow
from pkt.methods.laten_results import MODULES, LatenAlignment, LatenExtraction
from pkt.models.architecture import Architecture
from pkt.training.hypernetwork import HyperNetwork
from tiny import tiny_model

UNCHANGED = [name for name in METHODS if name != "laten"]


@pytest.mark.parametrize(
    ("family", "dtype"),
    mostly_slow([("llama", "float32"), ("gemma3_text", "bfloat16")], lambda family, _: family == "llama"),
)
@pytest.mark.parametrize("method", UNCHANGED)
def test_no_steps_change_no_bit(world, tmp_path, method, family, dtype):
    run = world.run(method, family, "optim.epochs=0", outputs=tmp_path, dtype=dtype)
    before = load_file(world.student(family) / "model.safetensors")
    assert run.weights.keys() == before.keys()
    for name, value in run.weights.items():
        assert value.dtype == getattr(torch, dtype)
        assert torch.equal(value, before[name].to(value.dtype)), name
    assert run.steps == []
    assert run.record["history"] == {"steps": 0, "validations": [], "best_step": None}
    assert run.record["budget"]["optimiser_steps"] == 0


def test_without_steps_there_is_no_best_step(world, tmp_path):
    run = world.run("sft", "llama", "optim.epochs=0", "optim.keep=best", outputs=tmp_path)
    assert run.record["history"]["best_step"] is None


def test_laten_s_first_hypernetwork_is_what_an_immobile_one_injects(world, tmp_path):
    settings = ("method.rho=0.25", "method.steps=1", "method.lr=1e-30", "method.align_rows=4")
    run = world.run("laten", "llama", outputs=tmp_path, settings=settings)
    extraction = LatenExtraction.load(run.results["extract"])
    alignment = LatenAlignment.load(run.results["align"])
    first = HyperNetwork(MODULES, teacher_width=24, student_width=16, seed=0)
    spread = torch.cat([p.detach().flatten() for p in first.parameters()]).std()
    assert float(spread) == pytest.approx(1e-5, rel=0.1)
    student = Architecture.of(tiny_model("llama", depth=3, width=16, num_key_value_heads=1, seed=2))
    sites = {(site.layer, site.module): site for site in extraction.sites()}
    assert len(alignment.deltas) == len(sites) == 12
    with torch.no_grad():
        for delta in alignment.deltas:
            site = sites[delta.layer, delta.module]
            assert torch.equal(delta.values_nD, first(delta.module, site.sources_nD))
            assert 0 < float(delta.values_nD.abs().max()) < 1e-8
            weight = student.projection(delta.layer, delta.module).weight
            rows = weight if delta.module in ("up", "v") else weight.T
            rows[site.index_n] += delta.values_nD
    expected = student.model.state_dict()
    for name, value in run.weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-9)
