"""JSONL always; W&B read back from its offline file."""

from __future__ import annotations

import json
import logging
import math
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pkt.config import Config, TrackerConfig
from pkt.errors import PktError
from pkt.tracking import JsonlTracker, TrackedArtifact, open_tracker

RESOLVED = {"verb": "transfer", "seed": 3, "method": {"name": "semalign"}}


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def config(name: str = "wandb", **tracker: Any) -> Config:
    return Config(verb="transfer", output_dir="x", tracker=TrackerConfig(name=name, **tracker))


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def wandb_records(run_dir: Path) -> Iterator[Any]:
    """Yield the records of the one offline run: a LevelDB log in 32 KiB blocks behind a 7-byte header."""
    from wandb.proto import wandb_internal_pb2 as pb

    (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    content, at, held = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        if kind == 0 and size == 0:
            break
        chunk = content[at + 7 : at + 7 + size]
        at += 7 + size
        held = chunk if kind in (1, 2) else held + chunk
        if kind in (1, 4):
            record = pb.Record()
            record.ParseFromString(held)
            yield record


def wandb_finished(run_dir: Path) -> list[Any]:
    """Wait for the file's last record: W&B's writer goes on for a moment after `finish`."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        records = list(wandb_records(run_dir))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.05)
    raise AssertionError("the W&B file has no exit record")


def wandb_read(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}, "artifacts": []}
    for record in wandb_finished(run_dir):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"group": record.run.run_group, "job_type": record.run.job_type, "id": record.run.run_id}
            found["config"] |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "config":
            found["config"] |= {i.key: json.loads(i.value_json) for i in record.config.update}
        elif kind == "history":
            items = record.history.item
            found["history"].append(
                {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
            )
        elif kind == "summary":
            for i in record.summary.update:
                found["summary"][".".join(i.nested_key) or i.key] = json.loads(i.value_json)
        elif kind == "artifact":
            found["artifacts"].append((record.artifact.name, record.artifact.type))
    return found


def tell(run_dir: Path, settings: Config, resolved: Any = RESOLVED) -> None:
    tracker = open_tracker(settings, run_dir, resolved)
    tracker.log({"loss": 0.5}, step=1, stage="transfer")
    tracker.log({"loss": 0.25}, step=2, stage="transfer")
    tracker.log({"accuracy": 1.0}, step=0, stage="eval")  # a stage's steps start again
    tracker.table("eval/scores", ("task", "score"), [("a", 0.5), ("b", "none")])
    tracker.summary({"eval/student/a": 0.9})
    tracker.artifact(
        TrackedArtifact(name="checkpoint-nano", kind="checkpoint", key="0123", content={"files": {}})
    )
    tracker.close()


def test_jsonl_has_everything(tmp_path: Path):
    tell(tmp_path, config("none"))
    records = lines(tmp_path)
    assert [record["kind"] for record in records] == [
        "config",
        *["metrics"] * 3,
        "table",
        "summary",
        "artifact",
    ]
    assert records[0]["values"] == RESOLVED
    assert records[1]["values"] == {"transfer/loss": 0.5}
    assert records[2]["step"] == 2
    assert records[4]["rows"] == [["a", 0.5], ["b", "none"]]


def test_jsonl_is_complete_after_every_line(tmp_path: Path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.log({"loss": 1.0}, step=0, stage="transfer")
    assert len(lines(tmp_path)) == 1
    tracker.close()


def test_jsonl_takes_what_json_does_not_know(tmp_path: Path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    values = {"a": torch.tensor(0.5), "b": np.float64(2), "c": math.nan, "d": math.inf}
    values |= {"e": tmp_path, "f": None}
    tracker.summary(values)
    tracker.table("t", ["x"], [[torch.ones(2)]])
    tracker.close()
    summary, table = lines(tmp_path)
    assert summary["values"] == {"a": 0.5, "b": 2.0, "c": "nan", "d": "inf", "e": str(tmp_path), "f": None}
    assert table["rows"] == [[[1.0, 1.0]]]


def test_unwritable_run_folder_is_one_message(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PktError, match="cannot write"):
        JsonlTracker(tmp_path / "file" / "metrics.jsonl")


def test_no_tracker_imports_no_wandb(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from pkt.tracking import open_tracker;"
        "from pkt.config import Config, TrackerConfig;"
        "c = Config(verb='run', output_dir='x', tracker=TrackerConfig(name='none'));"
        "open_tracker(c, Path(sys.argv[1]), {}).close(); assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_offline_run_reads_back(tmp_path: Path):
    pytest.importorskip("wandb")
    for job, seed in (("0", 3), ("1", 4)):  # jobs of a sweep: one W&B run each, one group
        run_dir = tmp_path / job
        run_dir.mkdir()
        tell(run_dir, config(group="sweep"), RESOLVED | {"seed": seed})
    found = [wandb_read(tmp_path / job) for job in ("0", "1")]
    assert found[0]["id"] != found[1]["id"]
    for run, seed in zip(found, (3, 4), strict=True):
        assert run["group"] == "sweep"
        assert run["job_type"] == "transfer"
        assert run["config"]["seed"] == seed
        assert run["config"]["method"] == {"name": "semalign"}
        losses = [row["transfer/loss"] for row in run["history"] if "transfer/loss" in row]
        assert losses == [0.5, 0.25]
        assert [row["eval/accuracy"] for row in run["history"] if "eval/accuracy" in row] == [1.0]
        assert any("eval/scores" in key for row in run["history"] for key in row)
        assert run["summary"]["eval/student/a"] == 0.9
        assert ("checkpoint-nano", "checkpoint") in run["artifacts"]


def test_group_defaults_to_the_runs_folder(tmp_path: Path):
    pytest.importorskip("wandb")
    run_dir = tmp_path / "stamp"
    tell(run_dir_made(run_dir), config())
    assert wandb_read(run_dir)["group"] == "stamp"


def run_dir_made(path: Path) -> Path:
    path.mkdir()
    return path


def test_broken_wandb_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setitem(sys.modules, "wandb", None)  # import raises
    with caplog.at_level(logging.WARNING, logger="pkt"):
        tell(tmp_path, config())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "metrics.jsonl has every number" in caplog.text
    assert len(lines(tmp_path)) == 7


def test_failure_in_the_middle_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    wandb = pytest.importorskip("wandb")

    class Broken:
        id = "x"

        def __getattr__(self, name: str) -> Any:
            raise OSError("disk gone\nsecond line")

    monkeypatch.setattr(wandb, "init", lambda **_: Broken())
    with caplog.at_level(logging.WARNING, logger="pkt"):
        tell(tmp_path, config())
    assert len(caplog.records) == 1
    assert "OSError: disk gone)" in caplog.text
    assert len(lines(tmp_path)) == 7
