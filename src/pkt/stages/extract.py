"""Stage 1: what to take from the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt import console
from pkt.errors import RequestError
from pkt.methods.base import Choice
from pkt.methods.combinations import check
from pkt.stages.session import Session
from pkt.store import Artifact

STAGE = "extract"


def key(session: Session) -> str:
    """Both models, the extract rows, and the method's own settings."""
    return session.key(
        STAGE,
        teacher=session.bench.teacher_fingerprint,
        student=session.bench.student_fingerprint,
        rows=session.rows_fingerprint("extract"),
    )


def extract(session: Session) -> Artifact:
    """Make sure that the extraction is in the store.

    Raises:
        RequestError: the method has no such stage, or its pairs do not go with the objective.
    """
    require(session, STAGE)
    own_key = key(session)

    def compute(folder: Path) -> Mapping[str, Any]:
        session.count_from(None)
        for note in session.bench.pair_report.warnings:  # refuses vocabularies that differ, before any work
            console.warn(note)
        extraction = session.method.extract(session.bench, session.store.partial(STAGE, own_key))
        for note in extraction.warnings():
            console.warn(note)
        extraction.save(folder)
        return session.counted()

    artifact = session.obtain(STAGE, own_key, compute)
    bench = session.bench  # another objective may ask more of the pairs than the one that they were made for
    choice = Choice(mapping=bench.mapping, semantics=bench.semantics, objective=bench.objective)
    check(session.method, choice, load(session, artifact).pairs)
    return artifact


def require(session: Session, stage: str) -> None:
    """Refuse a stage that the method does not have.

    Raises:
        RequestError: it has not.
    """
    if not session.has(stage):
        name = session.method.name
        raise RequestError(
            f"method={name} has no {stage} stage: it takes nothing there from the teacher. "
            f"Try `pkt transfer method={name}`."
        )


def load(session: Session, artifact: Artifact) -> Any:
    """Read the extraction from its artifact."""
    return session.method.results[STAGE].load(artifact.path)
