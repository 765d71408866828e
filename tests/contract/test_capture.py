"""What the teacher says is the same, to the last bit, however it reaches the training; and it is asked once."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from world import Stop, StoppedError

from cases import mostly_slow
from pkt.errors import PktError, RequestError
from pkt.methods.layer_results import LayerAlignment
from pkt.training import passes

ROW_BY_ROW = "capture.batch_size=1"
CACHED = "objective.terms.kl.teacher=cached"
WITH_TEACHER = [
    ("kd", "llama", (CACHED,)),
    ("hidden_kd", "qwen3", ()),
    ("semalign", "gpt2", ()),
    ("semalign_joint", "gemma3_text", ()),
    ("semalign_joint", "llama", ("semantics.refit=epochs",)),
    ("semalign_joint", "llama", ("semantics.trainable=true", "optim.micro_batch_size=3")),
    ("semalign_fisher", "llama", ("optim.epochs=4",)),
    ("semalign_geometry", "qwen3", ("optim.micro_batch_size=2", "optim.epochs=4")),
]


def same(one, other) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        assert torch.equal(value, other.weights[name]), name
    assert [step["loss"] for step in one.steps] == [step["loss"] for step in other.steps]


@pytest.mark.parametrize(
    ("method", "family", "more"),
    mostly_slow(
        WITH_TEACHER, lambda method, _, more: method == "kd" or any("trainable" in word for word in more)
    ),
)
def test_kept_window_and_live_teachers_give_the_same_bits(world, tmp_path, method, family, more):
    kept = world.run(method, family, *more, ROW_BY_ROW, outputs=tmp_path / "kept")
    for mode in ("window", "live"):
        asked = (*more, f"capture.mode={mode}")
        other = world.run(method, family, *asked, outputs=tmp_path / mode)
        same(kept, other)
        alignment = LayerAlignment.load(other.results["align"])
        assert not {"train", "validation"} & {*alignment.targets, *alignment.outputs}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["window", "live"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3"])
def test_modes_round_alike(world, tmp_path, mode, dtype):
    more = (f"method.cache_dtype={dtype}",)
    kept = world.run("semalign_joint", "llama", *more, ROW_BY_ROW, outputs=tmp_path / "kept")
    same(kept, world.run("semalign_joint", "llama", *more, f"capture.mode={mode}", outputs=tmp_path / mode))


@pytest.mark.parametrize("mode", mostly_slow(["keep", "window", "live"], lambda mode: mode == "window"))
def test_a_training_that_was_stopped_ends_with_the_same_bits_and_budget(world, tmp_path, mode):
    asked = (f"capture.mode={mode}", "capture.ahead=2")
    whole = world.run("semalign_joint", "llama", *asked, outputs=tmp_path / "whole")
    with pytest.raises(StoppedError):
        world.run("semalign_joint", "llama", *asked, outputs=tmp_path / "cut", stop=Stop(step=2))
    resumed = world.run("semalign_joint", "llama", *asked, outputs=tmp_path / "cut")
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())
    assert resumed.record["budget"] == whole.record["budget"]
    assert resumed.record["teacher_forward_tokens"] == whole.record["teacher_forward_tokens"]


@pytest.fixture
def asked(monkeypatch):
    """How often each row of each split went through a pass, by the number of layers that were read."""
    seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
    run = passes.Pass.__call__

    def counted(self, rows):
        for row in rows:
            seen[len(self.reads), tuple(self.encoded.input_ids[row])] += 1
        return run(self, rows)

    monkeypatch.setattr(passes.Pass, "__call__", counted)
    return seen


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("kd", (CACHED,)),
        ("hidden_kd", ()),
        ("semalign", ()),
        ("semalign_joint", ()),
        ("semalign_fisher", ()),
    ],
)
def test_the_teacher_goes_over_a_row_once_for_states_and_outputs(world, tmp_path, asked, method, more):
    run = world.run(method, "llama", *more, outputs=tmp_path)
    rows = {ids for _, ids in asked}
    assert len(rows) >= 8 + 4  # train and validation
    alignment = LayerAlignment.load(run.results["align"])
    per_row = {ids: sum(count for (_, own), count in asked.items() if own == ids) for ids in rows}
    prefixes = 1 if method in ("kd", "semalign", "semalign_fisher") else 0
    assert max(per_row.values()) <= 2 + prefixes  # the teacher's own, and the student's states that are kept
    assert alignment.outputs.keys() == ({"train", "validation"} if method != "semalign" else set())


def test_a_capture_that_was_stopped_goes_on_with_the_same_bits(world, tmp_path):
    whole = world.run("semalign_joint", "llama", outputs=tmp_path / "whole")
    with pytest.raises(StoppedError):
        world.run("semalign_joint", "llama", outputs=tmp_path / "cut", stop=Stop(what="teacher (validation)"))
    left = list((tmp_path / "cut").rglob("*.partial/states/train/00000.safetensors"))
    assert len(left) == 1
    made = left[0].stat().st_ino
    resumed = world.run("semalign_joint", "llama", outputs=tmp_path / "cut")
    same(whole, resumed)
    there = resumed.results["align"] / "states" / "train" / "00000.safetensors"
    assert there.stat().st_ino == made  # it was linked, neither computed again nor copied
    assert not list((tmp_path / "cut").rglob("*.partial"))


def test_more_than_there_is_room_for_is_refused_before_it_begins(world, tmp_path):
    with pytest.raises(
        PktError, match=r"would take .* room for capture.max_gb=1e-06.*float8_e4m3 .*window or live"
    ):
        world.run("semalign_joint", "llama", "capture.max_gb=0.000001", outputs=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_targets_of_other_rows_have_to_be_kept(world, tmp_path):
    with pytest.raises(RequestError, match=r"shuffled.*capture.mode=keep, got live"):
        world.run("semalign_joint", "llama", "method.targets=shuffled", "capture.mode=live", outputs=tmp_path)
