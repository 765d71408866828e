"""JSONL always; W&B read back from its offline file."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pkt.config import Config, TrackerConfig
from pkt.errors import PktError
from pkt.tracking import JsonlSink, TrackedArtifact, Tracker, open_tracker
from pkt.tracking.jsonl import read_records
from wandb_file import read_file

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
    tracker = Tracker([JsonlSink(tmp_path / "metrics.jsonl")])
    tracker.log({"loss": 1.0}, step=0, stage="transfer")
    assert len(lines(tmp_path)) == 1
    tracker.close()


def test_jsonl_takes_what_json_does_not_know(tmp_path: Path):
    tracker = Tracker([JsonlSink(tmp_path / "metrics.jsonl")])
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
        JsonlSink(tmp_path / "file" / "metrics.jsonl")


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
        tell(run_dir, config(group="sweep", tags=["mine"]), RESOLVED | {"seed": seed})
    found = [read_file(tmp_path / job) for job in ("0", "1")]
    assert found[0].id != found[1].id
    for run, seed in zip(found, (3, 4), strict=True):
        assert (run.group, run.job_type, run.exit_code) == ("sweep", "transfer", 0)
        assert run.name == f"transfer semalign seed {seed}"
        assert run.tags == ["mine", "semalign"]
        assert run.config["seed"] == seed
        assert run.config["method"] == {"name": "semalign"}
        losses = [row["transfer/loss"] for row in run.history if "transfer/loss" in row]
        assert losses == [0.5, 0.25]
        assert [row["eval/accuracy"] for row in run.history if "eval/accuracy" in row] == [1.0]
        assert run.axes["transfer/*"] == "transfer/step"
        assert run.axes["eval/*"] == "eval/step"
        assert any("eval/scores" in key for row in run.history for key in row)
        assert run.summary["eval/student/a"] == 0.9
    # the same artifact in two runs is the same: name, alias and digest
    first, second = (run.artifacts[0] for run in found)
    assert (first.name, set(first.aliases)) == ("checkpoint-nano", {"0123", "latest"})
    assert (first.name, first.digest) == (second.name, second.digest)


def test_group_defaults_to_the_runs_folder(tmp_path: Path):
    pytest.importorskip("wandb")
    run_dir = tmp_path / "stamp"
    tell(run_dir_made(run_dir), config())
    assert read_file(run_dir).group == "stamp"


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


def begin(
    run_dir: Path, steps: range, *, exit_code: int | None, resolved: Any = RESOLVED, name: str = "none"
):
    """Tell some steps of a request; None is a kill: the tracker is let go of and its lock with it."""
    tracker = open_tracker(config(name), run_dir, resolved)
    run_id = tracker.unfinished.run_id
    for step in steps:
        tracker.log({"loss": 1.0 / step}, step=step, stage="transfer")
    if exit_code is None:
        tracker.unfinished._lock.release()
        for sink in reversed(tracker.sinks):
            sink.close(0)
    else:
        tracker.close(exit_code)
    return run_id


def steps_of(run_dir: Path) -> list[int]:
    return [record["step"] for record in lines(run_dir) if record["kind"] == "metrics"]


@pytest.mark.parametrize("exit_code", [None, 1])
def test_a_request_that_did_not_end_goes_on_under_its_id(tmp_path: Path, exit_code: int | None):
    first = begin(tmp_path / "a", range(1, 8), exit_code=exit_code)
    with (tmp_path / "a" / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "metrics", "st')  # killed while writing
    second = begin(tmp_path / "b", range(5, 10), exit_code=0)  # its snapshot was at step 4
    assert second == first
    assert steps_of(tmp_path / "b") == list(range(1, 10))
    assert not list(tmp_path.rglob(".unfinished"))
    assert begin(tmp_path / "c", range(1, 3), exit_code=0) != first  # it ended: the next is a run of its own
    assert steps_of(tmp_path / "c") == [1, 2]


def test_a_stage_that_was_complete_is_told_again_as_a_whole(tmp_path: Path):
    begin(tmp_path / "a", range(1, 4), exit_code=None)
    begin(tmp_path / "b", range(0), exit_code=0)
    assert steps_of(tmp_path / "b") == [1, 2, 3]


def test_a_run_killed_twice_tells_every_step_once(tmp_path: Path):
    ids = [
        begin(tmp_path / "a", range(1, 6), exit_code=None),
        begin(tmp_path / "b", range(3, 9), exit_code=None),
    ]
    ids.append(begin(tmp_path / "c", range(7, 11), exit_code=0))
    assert len(set(ids)) == 1
    assert steps_of(tmp_path / "c") == list(range(1, 11))


def test_a_request_that_is_still_running_is_not_continued(tmp_path: Path):
    running = open_tracker(config("none"), tmp_path / "a", RESOLVED)
    running.log({"loss": 1.0}, step=1, stage="transfer")
    assert begin(tmp_path / "b", range(1, 3), exit_code=0) != running.unfinished.run_id
    assert steps_of(tmp_path / "b") == [1, 2]
    assert list(tmp_path.rglob(".unfinished/*.json"))  # the other's record is left alone
    running.close()
    assert not list(tmp_path.rglob(".unfinished"))


def test_a_run_that_goes_on_in_its_own_folder_tells_the_whole_of_it_to_a_report(tmp_path: Path):
    begin(tmp_path / "a", range(1, 6), exit_code=None)
    with (tmp_path / "a" / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "metrics", "values": {}')  # killed while writing
    begin(tmp_path / "a", range(3, 8), exit_code=None)
    begin(tmp_path / "a", range(6, 10), exit_code=0)
    assert [record["step"] for record in read_records(tmp_path / "a" / "metrics.jsonl")] == list(range(1, 10))


def test_a_line_that_was_changed_is_left_out(tmp_path: Path, caplog):
    file = tmp_path / "metrics.jsonl"
    tracker = Tracker([JsonlSink(file)])
    for step in range(1, 6):
        tracker.log({"loss": step / 8, "text\u2028": 1.0}, step=step, stage="transfer")
    tracker.close()
    whole = file.read_bytes()
    assert [record["step"] for record in read_records(file)] == [1, 2, 3, 4, 5]
    assert all("crc" not in record for record in read_records(file))
    for place in range(0, 8 * len(whole), 11):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        for record in read_records(file):
            assert record["values"]["transfer/loss"] == record["step"] / 8
    assert "are damaged or were cut off" in caplog.text


@pytest.mark.parametrize("line", ["[]", "3", '{"a": 1}', "[" * 100_000, "\ufffd"])
def test_a_line_that_is_no_record_is_left_out(tmp_path: Path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{line}\n{{"kind": "metrics", "step": 1, "values": {{}}}}\n')
    assert read_records(tmp_path / "metrics.jsonl") == [{"kind": "metrics", "step": 1, "values": {}}]


def test_a_record_of_an_unfinished_run_that_was_changed_is_not_believed(tmp_path: Path, caplog):
    first = begin(tmp_path / "a", range(1, 3), exit_code=None)
    (file,) = tmp_path.rglob(".unfinished/*.json")
    file.write_text(file.read_text().replace(first, "f" * 12))
    assert begin(tmp_path / "b", range(1, 3), exit_code=0) not in (first, "f" * 12)
    assert "starts anew" in caplog.text


def test_another_request_is_another_run(tmp_path: Path):
    first = begin(tmp_path / "a", range(1, 3), exit_code=None)
    assert begin(tmp_path / "b", range(1, 3), exit_code=0, resolved=RESOLVED | {"seed": 4}) != first


def test_a_request_that_computed_nothing_leaves_no_record(tmp_path: Path):
    begin(tmp_path / "a", range(0), exit_code=2)
    assert not list(tmp_path.rglob(".unfinished"))


def test_an_unreadable_record_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first = begin(tmp_path / "a", range(1, 3), exit_code=None)
    (record,) = tmp_path.rglob(".unfinished/*.json")
    record.write_text("{")
    assert begin(tmp_path / "b", range(1, 3), exit_code=0) != first
    assert "starts anew" in caplog.text


def test_a_killed_run_and_the_one_that_goes_on_make_one_whole_wandb_run(tmp_path: Path):
    pytest.importorskip("wandb")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = begin(tmp_path / "a", range(1, 6), exit_code=1, name="wandb")
    assert begin(tmp_path / "b", range(4, 8), exit_code=0, name="wandb") == first
    killed, whole = read_file(tmp_path / "a"), read_file(tmp_path / "b")
    assert (killed.id, killed.exit_code) == (whole.id, 1)
    assert [row["transfer/step"] for row in whole.history] == [1, 2, 3, 4, 5, 6, 7]
    # `wandb sync` passes over what the second file holds too
    assert len(list((tmp_path / "a").rglob("*.wandb.synced"))) == 1
    assert not list((tmp_path / "b").rglob("*.wandb.synced"))
