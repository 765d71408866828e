"""Stage 2: how the teacher's states read in the student's space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt import console
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
        for note in deficient_ranks(alignment):
            console.warn(note)
        alignment.save(folder)
        session.bench.release("teacher")
        return {"teacher_forward_tokens": session.bench.teacher_meter.forward_tokens - before}

    return session.obtain(STAGE, key(session), compute)


def deficient_ranks(alignment: Alignment) -> list[str]:
    """Say where a head spans less than its width: the map is then defined on the rest only."""
    infos = {map_.name: map_.info for map_ in alignment.maps.values()}
    return [
        f"the {who}'s head has rank {info[f'rank_{who}']} of {info[f'width_{who}']}: semantics={name} maps that part"
        for name, info in infos.items()
        for who in ("teacher", "student")
        if info.get(f"rank_{who}", 0) < info.get(f"width_{who}", 0) and f"rank_{who}" in info
    ]


def load(artifact: Artifact) -> Alignment:
    """Read the alignment from its artifact."""
    return Alignment.load(artifact.path)
