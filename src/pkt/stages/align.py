"""Stage 2: bring what was taken from the teacher into the student's space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pkt import console
from pkt.methods import readings
from pkt.methods.keeping import LOSS_SPLITS
from pkt.stages.session import Job


def run(job: Job) -> Mapping[str, Any]:
    """Let the method bring what it took into the student's space."""
    job.count_on()
    readings.tell(job.bench)
    alignment = job.method.align(job.bench, job.taken(), job.scratch)
    for note in alignment.warnings():
        console.warn(note)
    if job.writes:
        alignment.save(job.folder)
    job.bench.release("teacher")
    return {
        "kept_bytes": alignment.kept_bytes,
        "kept_tokens": _tokens(job, alignment.kept_bytes),
        **job.counted(),
    }


def _tokens(job: Job, kept: int) -> int:
    """Return the tokens of the rows that something was kept of."""
    return sum(sum(job.bench.encoded(split).lengths) for split in LOSS_SPLITS) if kept else 0
