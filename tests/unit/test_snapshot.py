"""Snapshots: what was changed is not gone on from, and the one before is."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from pkt.config import OptimConfig
from pkt.data.batching import Batch
from pkt.training.loop import Trainer
from pkt.training.snapshot import load_snapshot, save_snapshot

LIKE = {"a": torch.zeros(3)}


def save(folder, step: int) -> None:
    save_snapshot(folder, {"a": torch.full((3,), float(step))}, {"step": step})


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "key.partial"
    save(place, 1)
    save(place, 2)
    return place


def step(folder) -> int | None:
    found = load_snapshot(folder, LIKE)
    if found is not None:
        assert torch.equal(found.tensors["a"], torch.full((3,), float(found.state["step"])))
    return found and found.state["step"]


def test_the_newest_is_taken_and_the_one_before_is_kept(folder):
    assert step(folder) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["snapshot", "snapshot.previous"]
    save(folder, 3)
    assert step(folder) == 3


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete", "deep", "swap"])
def test_damage_is_noticed_and_the_work_goes_on_from_the_state_before(folder, name, damage, caplog):
    file = folder / "snapshot" / name
    content = bytearray(file.read_bytes())
    match damage:
        case "flip":
            content[-2] ^= 16  # in the tensors' file: the data, not its header
        case "cut":
            content = content[:-3]
        case "empty":
            content = bytearray()
        case "deep":
            content = bytearray(b"[" * 100_000)
        case "swap":
            content = bytearray((folder / "snapshot.previous" / name).read_bytes())
    file.write_bytes(content)
    if damage == "delete":
        file.unlink()
    assert step(folder) == 1
    assert "the work goes on from the state before" in caplog.text
    assert step(folder) == 1  # and again: what is damaged is out of the way
    save(folder, 5)
    assert step(folder) == 5


def test_a_kill_while_an_old_snapshot_goes_leaves_no_damage(folder, monkeypatch, caplog):
    def killed(path, **_):
        if path.exists():
            (path / "tensors.safetensors").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(folder, 3)
    assert (folder / "snapshot.previous").exists()
    assert [path.parent.name for path in folder.rglob("state.json")] == [
        "snapshot"
    ]  # what `pkt store verify` reads
    assert step(folder) == 2
    (folder / "snapshot").rename(folder / "gone")
    assert step(folder) is None
    assert not caplog.text


def test_where_both_are_damaged_the_work_begins_anew(folder):
    for name in ("snapshot", "snapshot.previous"):
        (folder / name / "state.json").write_text("{}")
    assert step(folder) is None


def test_a_snapshot_of_another_training_is_not_taken(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other.partial")
    assert step(tmp_path / "other.partial") is None
    assert load_snapshot(folder, {"a": torch.zeros(4)}) is None
    save(folder, 3)
    assert load_snapshot(folder, {"b": torch.zeros(3)}) is None


def test_outputs_can_be_moved_as_a_whole(folder, tmp_path):
    moved = tmp_path / "elsewhere" / "transfer"
    shutil.copytree(folder, moved / "key.partial")
    save(moved / "key.partial", 2)
    shutil.copytree(moved, tmp_path / "again" / "transfer")
    assert step(tmp_path / "again" / "transfer" / "key.partial") == 2


class Square:
    def __init__(self, weight: nn.Parameter, stop_at: int | None) -> None:
        self.weight, self.stop_at, self.calls = weight, stop_at, 0

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"loss": len(batch.index)}

    def weights(self, values: dict[str, torch.Tensor]) -> dict[str, float]:
        return {"loss": 1.0}

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return {"loss": (self.weight - batch.index[0]).square().sum()}


def trained(folder, stop_at: int | None = None) -> torch.Tensor:
    weight = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    ones = torch.ones(1, 1, dtype=torch.long)
    Trainer(
        loss=Square(weight, stop_at),
        parameters={"weight": weight},
        plan=[[[n] for n in range(6)]],
        collate=lambda rows: Batch(
            input_ids=ones, attention_mask=ones, supervised=ones.bool(), index=list(rows)
        ),
        optim=OptimConfig(lr=0.05, epochs=1, batch_size=1, save_every=0.0),
        snapshots=folder,
    ).fit()
    return weight.detach()


def test_a_training_that_resumes_from_damaged_state_ends_with_the_same_bits(tmp_path):
    """At ae6e05f a flipped bit in the tensors gave other weights, and a cut file failed for ever."""
    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", stop_at=5)
    file = tmp_path / "stopped" / "snapshot" / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 64
    file.write_bytes(content)
    assert torch.equal(trained(tmp_path / "stopped"), whole)
