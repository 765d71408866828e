"""Remember requests that were cut off: the same request, made again, continues their W&B run.

    first metric ──> <output_dir>/runs/.unfinished/<key>.json {id, run folder} ──> the run ends well ──> removed
    killed or failed ──> the same request again ──> the record is there: the same id, and the metrics so far

The key is the request's content, so two runs of one request that both end are two runs. A record is held by a lock
that dies with its process: a request that is still running is not taken for one that was killed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from pkt.durable import read_json, sealed, write_atomically
from pkt.manifest import content_key
from pkt.run_files import METRICS
from pkt.tracking.base import Record, Sink, Tracker
from pkt.tracking.jsonl import read_records

log = logging.getLogger(__name__)

FOLDER = ".unfinished"


class Unfinished:
    """The record of one request; nothing is written before `begin`.

    Args:
        output_dir: where all runs are kept.
        request: the resolved request.
        run_dir: this run's folder.

    Attributes:
        run_id: of the W&B run: the killed run's, or a new one.
        earlier_dir: the killed run's folder, if there is one.
    """

    def __init__(self, output_dir: Path, request: Mapping[str, Any], run_dir: Path) -> None:
        key = content_key({name: value for name, value in request.items() if name != "output_dir"})
        self._output_dir, self._run_dir = output_dir, run_dir
        self._file = output_dir / "runs" / FOLDER / f"{key}.json"
        self._lock = FileLock(str(self._file.with_suffix(".lock")))
        self.run_id, self.earlier_dir = uuid4().hex[:12], None
        if self._file.is_file() and self._hold():
            try:
                record = read_json(self._file)
                self.run_id, self.earlier_dir = str(record["run_id"]), output_dir / record["run_dir"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s cannot be read (%s): this run starts anew in W&B", self._file, error)

    def _hold(self) -> bool:
        """Take the record, unless a living process has it."""
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except (Timeout, OSError):  # another process has it, or the folder cannot be written
                return False
        return True

    def begin(self) -> None:
        """Write the record: from now on the same request goes on here."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._hold():  # else the same request is running in another process
            run_dir = os.path.relpath(self._run_dir, self._output_dir)  # outputs can be moved as a whole
            write_atomically(self._file, sealed({"run_id": self.run_id, "run_dir": run_dir}))

    def end(self, *, well: bool) -> None:
        """Let go of the record; a run that ended well leaves none."""
        if not self._lock.is_locked:
            return
        if well:
            self._file.unlink(missing_ok=True)
        self._lock.release()
        if well:
            self._file.with_suffix(".lock").unlink(missing_ok=True)
            if not any(self._file.parent.iterdir()):
                self._file.parent.rmdir()

    def earlier_metrics(self) -> list[Record]:
        """Return the metrics that the killed run left."""
        records = read_records(self.earlier_dir / METRICS) if self.earlier_dir else []
        return [record for record in records if record["kind"] == "metrics" and record["values"]]


class ContinuedTracker(Tracker):
    """A tracker that first repeats the metrics of the run that it continues.

    A stage that resumes from a snapshot does not compute its earlier steps again. They are repeated from the killed
    run's metrics before its first new step; those of stages that were complete already are repeated at the end.

    Args:
        sinks: get every record in this order.
        unfinished: the request's record.
    """

    def __init__(self, sinks: Sequence[Sink], unfinished: Unfinished) -> None:
        super().__init__(sinks)
        self.unfinished = unfinished
        self._earlier = unfinished.earlier_metrics()
        self._begun = False

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Take metrics of one step, after the steps before it."""
        if not self._begun:
            self._begun = True
            try:
                self.unfinished.begin()
            except OSError as error:
                log.warning("this run cannot be continued in W&B should it be killed (%s)", error)
        self._repeat([one for one in self._earlier if one["step"] < step and _stage_of(one) == stage])
        self._earlier = [one for one in self._earlier if _stage_of(one) != stage]
        super().log(metrics, step, stage)

    def close(self, exit_code: int = 0) -> None:
        """Repeat what is left of the killed run, and finish."""
        self._repeat(self._earlier)
        super().close(exit_code)
        try:
            self.unfinished.end(well=exit_code == 0)
        except OSError as error:
            log.warning("%s cannot be removed (%s)", FOLDER, error)

    def _repeat(self, records: Sequence[Record]) -> None:
        for record in records:
            self._tell("metrics", step=record["step"], values=record["values"])


def _stage_of(record: Record) -> str:
    return str(next(iter(record["values"]))).partition("/")[0]
