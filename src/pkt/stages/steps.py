"""The metrics of every optimiser step, kept in the result that they led to.

    training ──log──> tracker
                └──> <scratch>/steps.jsonl ──the stage ends──> steps.json of the result ──it is reused──> tracker
                                                                           └──> the page of every run that has it

So a run that reuses a training shows its curves too. The lines lie beside the snapshot, and outlive a kill as it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pkt import console
from pkt.run_files import STEPS
from pkt.stages.session import Job, Session
from pkt.tracking.jsonl import checked, marked

_LINES = "steps.jsonl"
Steps = dict[int, dict[str, float]]


@contextmanager
def kept(job: Job) -> Iterator[None]:
    """Keep what a stage logs of its steps, until `store` puts it into the result."""
    bench, told = job.bench, job.bench.log
    if not job.writes:
        yield
        return

    def log(step: int, metrics: dict[str, float]) -> None:
        told(step, metrics)
        line = marked(json.dumps({"kind": "step", "step": step, "values": metrics}))
        with (job.scratch / _LINES).open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}")  # a kill may have left half a line before
            stream.flush()
            os.fsync(stream.fileno())  # or a snapshot could outlive the lines of its steps in a power cut

    bench.log = log
    try:
        yield
    finally:
        bench.log = told


def store(job: Job) -> None:
    """Write step -> metrics into the result, in order; what a resumed training did again counts once.

    A line that is not as it was written is left out: one that was being written at a kill, whose step was done again,
    or one that was changed since.
    """
    file = job.scratch / _LINES
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    records = [record for line in lines if line and (record := checked(line))]
    found: Steps = {record["step"]: record["values"] for record in records}
    if lacking := max(found, default=0) - len(found):
        console.warn(f"the lines of {lacking} steps of this training are damaged; its curves leave them out")
    (job.folder / STEPS).write_text(json.dumps(dict(sorted(found.items()))), encoding="utf-8")


def replay(session: Session) -> None:
    """Tell the tracker the steps of a training that this run has reused; it told those of its own as they were made."""
    reused = any(entry["stage"] == "transfer" and entry["reused"] for entry in session.reports)
    if not reused:
        return
    session.tracker.summary({"transfer/reused": 1})
    for step, metrics in stored(session.results["transfer"].path).items():
        session.tracker.log(metrics, step=step, stage="transfer")


def stored(folder: Path) -> Steps:
    """Return the steps that a result holds; none of a result that was made before they were kept."""
    file = folder / STEPS
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {int(step): metrics for step, metrics in content.items()}
