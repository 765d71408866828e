"""Stage 3: change the student, and leave a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pkt.mapping import LayerPair
from pkt.methods.base import Transferred, described
from pkt.models.load import quiet_transformers
from pkt.reporting.card import CardFacts, model_card
from pkt.stages.session import Job, Session
from pkt.store import Artifact

MODEL = "model"  # the student with the update merged into its weights
ADAPTER = "adapter"  # the PEFT adapter, where update.kind=lora


def run(job: Job) -> Mapping[str, Any]:
    """Let the method change the student, and save it."""
    job.count_on()
    transferred = job.method.transfer(job.bench, job.taken(), job.scratch)
    _save(job.session, transferred, job.folder)
    job.bench.release("student", "teacher")
    return {
        "layers": list(transferred.layers),
        "budget": transferred.budget,
        **_dropped(job.session),
        **job.counted(),
    }


def _save(session: Session, transferred: Transferred, folder: Path) -> None:
    pair = session.bench.config.model
    student = session.bench.student
    base = str(pair.student.checkpoint or pair.teacher.checkpoint)
    with quiet_transformers():
        transferred.trainable.save_adapter(folder / ADAPTER, base)
        transferred.trainable.merged().save_pretrained(str(folder / MODEL))
        student.tokenizer.save_pretrained(str(folder / MODEL))
    metrics = {"history": asdict(transferred.history), "budget": transferred.budget}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (folder / "config.yaml").write_text(session.resolved_config, encoding="utf-8")
    facts = _facts(session, folder, layers=transferred.layers, budget=transferred.budget)
    (folder / MODEL / "README.md").write_text(model_card(facts, scores=None), encoding="utf-8")


def card_facts(session: Session, artifact: Artifact) -> CardFacts:
    """Return what the card of a finished checkpoint tells."""
    return _facts(session, artifact.path, layers=artifact.meta["layers"], budget=artifact.meta["budget"])


def _facts(session: Session, folder: Path, *, layers: Sequence[int], budget: Mapping[str, Any]) -> CardFacts:
    bench, pair = session.bench, session.bench.config.model
    pairs: tuple[LayerPair, ...] = ()
    if "extract" in session.results:
        pairs = session.loaded("extract").pairs
    student = str(pair.student.checkpoint or f"{pair.teacher.checkpoint} (layers {pair.student.layers})")
    return CardFacts(
        method=session.method.name,
        teacher=str(pair.teacher.checkpoint),
        student=student,
        fingerprints={"student": bench.student_fingerprint, "teacher": bench.teacher_fingerprint},
        layers=layers,
        pairs=[f"{'+'.join(map(str, p.teacher))} → {p.student}" for p in pairs],
        interface=getattr(session.method, "interface", None),
        semantics=described(bench.semantics) if "semantics" in session.method.uses else None,
        objective=described(bench.objective) if "objective" in session.method.uses else None,
        uses_teacher=bool(session.method.results),
        data={
            "benchmark": bench.config.benchmark.name,
            **{split: len(bench.splits[split]) for split in ("extract", "align", "train", "validation")},
            "fingerprint": bench.digest("train"),
            **_dropped(session),
        },
        budget=budget,
        command=session.command,
        provenance=session.origin,
        adapter=(folder / ADAPTER).is_dir(),
        seed=bench.config.seed,
    )


def _dropped(session: Session) -> dict[str, Any]:
    """Return how many rows were too long to train on, of how many; nothing where none was."""
    counts = {pool: f"{count} of {total}" for pool, (count, total) in session.bench.fitting.dropped.items()}
    return {"rows_too_long": counts} if counts else {}
