"""Stage 2: how the teacher's states read in the student's space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt.methods.base import Alignment
from pkt.stages import extract as extract_stage
from pkt.stages.session import Session
from pkt.store import Artifact

STAGE = "align"


def key(session: Session) -> str:
    """The extraction, both models, the rows whose states are kept, and the method's own settings."""
    return session.key(
        STAGE,
        extraction=extract_stage.key(session),
        teacher=session.teacher_fingerprint,
        student=session.student_fingerprint,
        rows=session.rows_fingerprint("align", "train", "validation"),
    )


def align(session: Session) -> Artifact:
    """Make sure that the alignment is in the store."""
    extraction = extract_stage.extract(session)

    def compute(folder: Path) -> Mapping[str, Any]:
        before = session.bench.teacher_meter.forward_tokens
        alignment = session.method.align(session.bench, extract_stage.load(extraction))
        alignment.save(folder)
        session.bench.release("teacher")
        return {"teacher_forward_tokens": session.bench.teacher_meter.forward_tokens - before}

    return session.obtain(STAGE, key(session), compute)


def load(artifact: Artifact) -> Alignment:
    """Read the alignment from its artifact."""
    return Alignment.load(artifact.path)
