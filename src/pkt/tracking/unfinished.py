"""Requests that began and did not come to their end, so that the same request goes on in the same W&B run.

    first metric ──> <output_dir>/runs/.unfinished/<key>.json {id, run folder} ──> the run ends well ──> removed
    killed or failed ──> the same request again ──> the record is there: the same id, and the metrics told before

The key is the request's content, so two runs of one request that both end are two runs. A record is held by a lock
that dies with its process: a request that is still running is not taken for one that was killed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from pkt.manifest import content_key, write_atomically
from pkt.tracking.base import TrackedArtifact, Trackers

log = logging.getLogger(__name__)

FOLDER = ".unfinished"


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One step's metrics, as `Tracker.log` takes them."""

    stage: str
    step: int
    values: dict[str, float]


@dataclass(kw_only=True)
class Unfinished:
    """The record of one request.

    Attributes:
        path: the record's file.
        run_id: of the W&B run: the killed run's, or a new one.
        run_dir: this run's folder.
        earlier_dir: the killed run's folder, if there is one.
    """

    path: Path
    run_id: str
    run_dir: Path
    earlier_dir: Path | None = None
    _lock: FileLock | None = None

    @classmethod
    def find(cls, output_dir: Path, request: Mapping[str, Any], run_dir: Path) -> Unfinished:
        """Return what is known of a request; nothing is written yet.

        Args:
            output_dir: where all runs are kept.
            request: the resolved request.
            run_dir: this run's folder.
        """
        key = content_key({name: value for name, value in request.items() if name != "output_dir"})
        path = output_dir / "runs" / FOLDER / f"{key}.json"
        fresh = cls(path=path, run_id=uuid4().hex[:12], run_dir=run_dir)
        if not path.is_file() or not fresh._hold():
            return fresh
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            fresh.run_id, fresh.earlier_dir = str(record["run_id"]), (output_dir / record["run_dir"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s): this run starts anew in W&B", path, error)
        return fresh

    def _hold(self) -> bool:
        """Take the record, unless a living process has it."""
        if self._lock is None:
            lock = FileLock(str(self.path.with_suffix(".lock")))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
            self._lock = lock
        return True

    def begin(self) -> None:
        """Write the record: from now on the same request goes on here."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._hold():
            return  # the same request is running in another process
        output_dir = self.path.parents[2].resolve()
        run_dir = self.run_dir.resolve()
        inside = run_dir.is_relative_to(output_dir)
        where = run_dir.relative_to(output_dir) if inside else run_dir
        write_atomically(self.path, json.dumps({"run_id": self.run_id, "run_dir": str(where)}))

    def end(self, *, well: bool) -> None:
        """Let go of the record; a run that ended well leaves none."""
        if self._lock is None:
            return
        if well:
            self.path.unlink(missing_ok=True)
        self._lock.release()
        self._lock = None
        if well:
            self.path.with_suffix(".lock").unlink(missing_ok=True)
            if not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()

    def earlier(self, name: str) -> list[Metrics]:
        """Return the metrics that the killed run left in a file of its folder."""
        if self.earlier_dir is None:
            return []
        try:
            text = (self.earlier_dir / name).read_text(encoding="utf-8")
        except OSError:
            return []
        # a run that was continued in one folder may hold a step twice: the last one counts
        return list({(one.stage, one.step): one for one in _metrics(text)}.values())


def _metrics(text: str) -> Iterator[Metrics]:
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # the line that was being written
            continue
        if record.get("kind") != "metrics" or not record["values"]:
            continue
        stage = str(next(iter(record["values"]))).partition("/")[0]
        values = {name.removeprefix(f"{stage}/"): value for name, value in record["values"].items()}
        yield Metrics(stage=stage, step=int(record["step"]), values=values)


@dataclass(kw_only=True)
class ContinuedTracker:
    """A request's trackers, which are told first what the run that it continues had told.

    A stage that goes on from a snapshot repeats nothing before it, so its earlier steps are told again when its first
    step comes, and those of a stage that was already complete at the end.

    Attributes:
        inner: the trackers.
        unfinished: the request's record.
        earlier: the killed run's metrics.
        told_again: those of the trackers that do not have them yet.
    """

    inner: Trackers
    unfinished: Unfinished
    earlier: list[Metrics] = field(default_factory=list)
    told_again: Trackers = field(default_factory=lambda: Trackers(()))
    _begun: bool = False

    def config(self, values: Mapping[str, Any]) -> None:
        """Pass on."""
        self.inner.config(values)

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Pass on, after the steps before it."""
        if not self._begun:
            self._begun = True
            self._safely(self.unfinished.begin)
        self._tell_again([one for one in self.earlier if one.stage == stage and one.step < step])
        self.earlier = [one for one in self.earlier if one.stage != stage]
        self.inner.log(metrics, step, stage)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Pass on."""
        self.inner.table(name, columns, rows)

    def figure(self, name: str, path: Path) -> None:
        """Pass on."""
        self.inner.figure(name, path)

    def summary(self, values: Mapping[str, float]) -> None:
        """Pass on."""
        self.inner.summary(values)

    def artifact(self, item: TrackedArtifact) -> None:
        """Pass on."""
        self.inner.artifact(item)

    def close(self, exit_code: int = 0) -> None:
        """Tell what is left of the killed run, and finish."""
        self._tell_again(self.earlier)
        self.earlier = []
        self.inner.close(exit_code)
        self._safely(lambda: self.unfinished.end(well=exit_code == 0))

    def _tell_again(self, earlier: Sequence[Metrics]) -> None:
        for one in earlier:
            self.told_again.log(one.values, one.step, one.stage)

    @staticmethod
    def _safely(action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            log.warning("this run cannot be continued in W&B should it be killed (%s)", error)
