"""Stage 1: which teacher layers go to which student layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt import console
from pkt.methods.base import Extraction
from pkt.stages.session import Session
from pkt.store import Artifact

STAGE = "extract"


def key(session: Session) -> str:
    """Teacher, both depths, the extract rows, and the method's own settings."""
    return session.key(
        STAGE,
        teacher=session.teacher_fingerprint,
        student_depth=session.bench.student_config.num_hidden_layers,
        rows=session.rows_fingerprint("extract"),
    )


def extract(session: Session) -> Artifact:
    """Make sure that the extraction is in the store."""

    def compute(folder: Path) -> Mapping[str, Any]:
        for (
            warning
        ) in session.bench.pair_report.warnings:  # refuses vocabularies that differ, before any work
            console.warn(warning)
        extraction = session.method.extract(session.bench)
        extraction.save(folder)
        return {"teacher_forward_tokens": session.bench.teacher_meter.forward_tokens}

    return session.obtain(STAGE, key(session), compute)


def load(artifact: Artifact) -> Extraction:
    """Read the extraction from its artifact."""
    return Extraction.load(artifact.path)
