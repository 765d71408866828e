"""Stage 3: change the student, and leave a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pkt.methods.base import Transferred, described
from pkt.models.load import quiet
from pkt.reporting.card import CardFacts, model_card
from pkt.stages import align as align_stage
from pkt.stages import extract as extract_stage
from pkt.stages.session import Session
from pkt.store import Artifact

STAGE = "transfer"
MODEL = "model"  # the student with the update merged into its weights
ADAPTER = "adapter"  # the PEFT adapter, where update.kind=lora


def key(session: Session) -> str:
    """The alignment (where there is one), the student, the train rows, and the method's settings."""
    uses_teacher = "align" in session.method.stages
    return session.key(
        STAGE,
        alignment=align_stage.key(session) if uses_teacher else None,
        student=session.student_fingerprint,
        rows=session.rows_fingerprint("train", "validation"),
    )


def transfer(session: Session) -> Artifact:
    """Make sure that the transferred student is in the store."""
    alignment = align_stage.align(session) if "align" in session.method.stages else None
    own_key = key(session)

    def compute(folder: Path) -> Mapping[str, Any]:
        snapshots = session.store.partial(STAGE, own_key)
        loaded = align_stage.load(alignment) if alignment is not None else None
        transferred = session.method.transfer(session.bench, loaded, snapshots)
        _save(session, transferred, folder)
        session.bench.release("student")
        return {"layers": list(transferred.layers), "budget": transferred.budget}

    return session.obtain(STAGE, own_key, compute)


def _save(session: Session, transferred: Transferred, folder: Path) -> None:
    pair = session.bench.config.model
    student = session.bench.student
    base = str(pair.student.checkpoint or pair.teacher.checkpoint)
    with quiet():
        transferred.trainable.save_adapter(folder / ADAPTER, base)
        transferred.trainable.merged().save_pretrained(str(folder / MODEL))
        student.tokenizer.save_pretrained(str(folder / MODEL))
    metrics = {"history": asdict(transferred.history), "budget": transferred.budget}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (folder / "config.yaml").write_text(session.resolved_config, encoding="utf-8")
    facts = _facts(session, layers=transferred.layers, budget=transferred.budget)
    (folder / MODEL / "README.md").write_text(model_card(facts, scores=None), encoding="utf-8")


def card_facts(session: Session, artifact: Artifact) -> CardFacts:
    """Return what the card of a finished checkpoint tells."""
    return _facts(session, layers=artifact.meta["layers"], budget=artifact.meta["budget"])


def _facts(session: Session, *, layers: Sequence[int], budget: Mapping[str, Any]) -> CardFacts:
    bench, pair = session.bench, session.bench.config.model
    uses_teacher = "align" in session.method.stages
    pairs = extract_stage.load(extract_stage.extract(session)).pairs if uses_teacher else ()
    student = str(pair.student.checkpoint or f"{pair.teacher.checkpoint} (layers {pair.student.layers})")
    return CardFacts(
        method=session.method.name,
        teacher=str(pair.teacher.checkpoint),
        student=student,
        fingerprints={"student": session.student_fingerprint, "teacher": session.teacher_fingerprint},
        layers=layers,
        pairs=[f"{'+'.join(map(str, p.teacher))} → {p.student}" for p in pairs],
        interface=getattr(session.method, "interface", None),
        semantics=described(bench.semantics),
        objective=described(bench.objective),
        data={
            "benchmark": bench.config.benchmark.name,
            **{split: len(bench.splits[split]) for split in ("extract", "align", "train", "validation")},
            "fingerprint": session.rows_fingerprint("train"),
        },
        budget=budget,
        command=session.command,
        provenance=session.provenance,
        adapter=update_kind(session.method) == "lora",
        seed=bench.config.seed,
    )


def update_kind(method: Any) -> str | None:
    """Return how a method changes weights (``lora``, ``full``), or None where it does not say."""
    update = getattr(method, "update", None)
    return getattr(update, "kind", None)
