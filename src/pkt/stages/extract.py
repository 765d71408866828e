"""Stage 1: choose what to take from the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pkt import console
from pkt.methods import readings
from pkt.stages.session import Job


def run(job: Job) -> Mapping[str, Any]:
    """Let the method choose what to take."""
    job.count_on()
    readings.tell(job.bench)
    extraction = job.method.extract(job.bench, job.scratch)
    for note in extraction.warnings():
        console.warn(note)
    extraction.save(job.folder)
    return job.counted()
