"""Tell the tracker what a run made, and from what.

    teacher, student ──> extraction ──> alignment ──> checkpoint ──> scores     (names: <kind>-<model pair>)

An artifact's version is its files' checksums, so the same result is the same version in every run; the store's key
is its alias. W&B shows what the run reused as its inputs, and what it computed as its outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pkt.secrets import without
from pkt.stages.session import Session
from pkt.store import Artifact
from pkt.tracking import TrackedArtifact

KINDS = {
    "extract": "extraction",
    "answer": "answers",
    "align": "alignment",
    "transfer": "checkpoint",
    "eval": "scores",
}
# a checkpoint's card is rewritten when scores are known; it is not what makes the checkpoint
REWRITTEN = "README.md"


def tell_artifacts(session: Session) -> None:
    """Hand the tracker everything that this run computed or reused, inputs first."""
    for item in _chain(session):
        session.tracker.artifact(item)


def _chain(session: Session) -> Iterator[TrackedArtifact]:
    models = {role: _model(session, role) for role in ("teacher", "student")}
    yield from models.values()
    made = {entry["stage"]: not entry["reused"] for entry in session.reports}
    known: dict[str, TrackedArtifact] = {}
    for name, artifact in session.results.items():
        step = session.plan[name]
        read = (step.of,) if step.stage == "eval" else step.ingredients["models"]
        inputs = [known[taken] for taken in step.takes] or [models[role] for role in models if role in read]
        known[name] = _result(session, step.stage, artifact, inputs=inputs, made=made[name])
        yield known[name]


def _model(session: Session, role: str) -> TrackedArtifact:
    bench = session.bench
    key = str(getattr(bench, f"{role}_fingerprint"))
    spec = getattr(bench.pair, role)
    checkpoint = str(spec.checkpoint or bench.config.model.teacher.checkpoint)
    return TrackedArtifact(
        name=f"{role}-{bench.config.model.name}",
        kind="model",
        key=key[:16],
        content={"fingerprint": key},
        facts={"checkpoint": without(checkpoint), "layers": spec.layers},
        made=False,
    )


def _result(
    session: Session, stage: str, artifact: Artifact, *, inputs: list[TrackedArtifact], made: bool
) -> TrackedArtifact:
    manifest = artifact.manifest
    files = {name: facts for name, facts in manifest["files"].items() if not name.endswith(REWRITTEN)}
    facts: dict[str, Any] = {**manifest["meta"], "created": manifest["created"], "path": str(artifact.path)}
    if stage in session.method.results or stage == "transfer":
        facts["method"] = session.method.name
    kind = KINDS.get(stage, stage)
    return TrackedArtifact(
        name=f"{kind}-{session.bench.config.model.name}",
        kind=kind,
        key=artifact.key,
        content={"stage": stage, "key": artifact.key, "format": manifest["format"], "files": files},
        facts=facts,
        inputs=tuple(one.address for one in inputs),
        made=made,
        folder=artifact.path,
    )
