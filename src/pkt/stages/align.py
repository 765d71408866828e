"""Stage 2: how what was taken reads in the student's space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt import console
from pkt.stages import extract as extract_stage
from pkt.stages.session import Session
from pkt.store import Artifact

STAGE = "align"


def key(session: Session) -> str:
    """The extraction, both models, the rows whose states are kept, and the method's own settings."""
    return session.key(
        STAGE,
        extraction=extract_stage.key(session) if session.has("extract") else None,
        teacher=session.bench.teacher_fingerprint,
        student=session.bench.student_fingerprint,
        rows=session.rows_fingerprint("align", "train", "validation"),
    )


def align(session: Session) -> Artifact:
    """Make sure that the alignment is in the store.

    Raises:
        RequestError: the method has no such stage.
    """
    extract_stage.require(session, STAGE)
    extraction = extract_stage.extract(session) if session.has("extract") else None
    own_key = key(session)

    def compute(folder: Path) -> Mapping[str, Any]:
        session.count_from(extraction)
        if extraction is None:
            for (
                note
            ) in session.bench.pair_report.warnings:  # refuses vocabularies that differ, before any work
                console.warn(note)
        loaded = extract_stage.load(session, extraction) if extraction is not None else None
        alignment = session.method.align(session.bench, loaded, session.store.partial(STAGE, own_key))
        for note in alignment.warnings():
            console.warn(note)
        alignment.save(folder)
        session.bench.release("teacher")
        return session.counted()

    return session.obtain(STAGE, own_key, compute)


def load(session: Session, artifact: Artifact) -> Any:
    """Read the alignment from its artifact."""
    return session.method.results[STAGE].load(artifact.path)
