"""What `pkt plan` says of a request against what its stages counted and wrote: every method at its tiny settings."""

from __future__ import annotations

import pytest
from matrix import METHODS

from pkt.pipeline import request
from pkt.planning.costs import costs
from pkt.planning.counted import counted
from pkt.planning.estimate import read, settled
from pkt.planning.facts import pair_of
from pkt.planning.rows import Rows

DRAWS = ("laten",)  # whose steps draw rows: the mean row stands for them
ANSWERS = ("seqkd",)  # trained on answers whose length nobody knows before they are there


def planned(world, name: str, family: str):
    cfg = world.request(name, family, METHODS[name].settings, "float32")
    cfg.output_dir = str(world.root / "planned")
    pair = pair_of(cfg.model, on_gpu=False)
    bench, _ = request(cfg)
    rows = counted(bench)
    asked = read(cfg, pair)
    return settled(cfg), costs(asked, rows), asked


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ANSWERS])
def test_tokens_are_those_that_the_stages_count(world, name: str):
    run = world.shared(name, "llama")
    _, found, asked = planned(world, name, "llama")
    budget, student = run.record["budget"], sum(c.student_tokens for n, c in found.items() if "eval" not in n)
    near = 0.1 if name in DRAWS else 0
    if name == "laten":
        assert student == pytest.approx(budget["student_forward_tokens"], rel=near)
        return
    assert student == budget["student_forward_tokens"]
    if "student_layer_tokens" in budget and asked.method != "Identity":
        exact = asked.pairs == () or not asked.scores  # where the layers are assumed, so is what runs
        layers = sum(cost.layer_tokens for name, cost in found.items() if "eval" not in name)
        assert layers == budget["student_layer_tokens"] or not exact
    assert found["transfer"].teacher_tokens == run.record["teacher_forward_tokens"]


@pytest.mark.parametrize("name", ["semalign_joint", "hidden_kd", "semalign_geometry", "seeking", "kd"])
def test_bytes_of_tensors_are_those_that_are_written(world, name: str):
    run = world.shared(name, "llama")
    _, found, asked = planned(world, name, "llama")
    beside = asked.student.folder - asked.student.weights
    for stage, folder in (run.results | {"transfer": run.folder}).items():
        written = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        written += beside if stage == "transfer" else 0
        assert found[stage].disk == pytest.approx(written, rel=0.05, abs=8000)  # headers, at these sizes


def test_the_answers_of_the_teacher_come_first_and_are_train_rows(world):
    config, found, _ = planned(world, "seqkd", "llama")
    assert list(found)[:2] == ["answer", "transfer"]
    assert found["answer"].rows == config.data.sizes.train == found["transfer"].rows


def test_nothing_is_read_of_no_rows():
    assert Rows().widest(4).padded == 0
    assert Rows().mean == 0
