"""Stage 3: change the student, and leave a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pkt.mapping import LayerPair
from pkt.methods.base import Transferred, described
from pkt.models.finite import check_finite
from pkt.models.kept import told
from pkt.models.quiet import quiet_transformers
from pkt.reporting.card import model_card
from pkt.run_files import CHECKPOINT, REQUEST
from pkt.secrets import without
from pkt.stages import steps
from pkt.stages.session import Job, Session

ADAPTER = "adapter"  # the PEFT adapter, where update.kind=lora


def run(job: Job) -> Mapping[str, Any]:
    """Let the method change the student, and save it."""
    job.count_on()
    with steps.kept(job):
        transferred = job.method.transfer(job.bench, job.taken(), job.scratch)
    if job.writes:
        _save(job, transferred)
    job.bench.release("student", "teacher")
    return {
        "layers": list(transferred.layers),
        "budget": transferred.budget,
        **_dropped(job.session),
        **job.counted(),
    }


def _save(job: Job, transferred: Transferred) -> None:
    session, folder = job.session, job.folder
    pair = session.bench.config.model
    student = session.bench.student
    base = str(pair.student.checkpoint or pair.teacher.checkpoint)
    with quiet_transformers():
        transferred.trainable.save_adapter(folder / ADAPTER, base)
        merged = transferred.trainable.merged()
        check_finite(
            merged, "the trained student", "Lower optim.lr, or load it in float32 (model.student.dtype)."
        )
        merged.save_pretrained(str(folder / CHECKPOINT))
        student.tokenizer.save_pretrained(str(folder / CHECKPOINT))
    steps.store(job)
    metrics = {"history": asdict(transferred.history), "budget": transferred.budget}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    (folder / REQUEST).write_text(session.resolved_config, encoding="utf-8")
    made = {"layers": transferred.layers, "budget": transferred.budget}
    (folder / CHECKPOINT / "README.md").write_text(card(session, folder, made), encoding="utf-8")


def card(session: Session, folder: Path, made: Mapping[str, Any], scores: str | None = None) -> str:
    """Return the card of a checkpoint.

    Args:
        session: the request.
        folder: what the stage has left, or is about to.
        made: the ``layers`` that were trained and the ``budget``, and once the result is there who made it.
        scores: a Markdown table of its scores, where they are known.
    """
    bench, pair, method = session.bench, session.bench.config.model, session.method
    pairs: tuple[LayerPair, ...] = session.shown("extract").pairs if "extract" in session.results else ()
    teacher = str(pair.teacher.checkpoint)
    student = str(pair.student.checkpoint or f"{teacher} ({told(bench.pair.student)})")
    taught = f"`{teacher}` (fingerprint `{bench.teacher_fingerprint}`)"
    recipe = {
        "student": f"`{student}` (fingerprint `{bench.student_fingerprint}`)",
        "teacher": taught if method.results or bench.answered else None,
        "layer pairs (teacher → student, from 1)": ", ".join(
            f"{'+'.join(map(str, p.teacher))} → {p.student}" for p in pairs
        ),
        "supervision interface": getattr(method, "interface", None),
        "alignment map": described(bench.semantics) if "semantics" in method.uses else None,
        "objective": described(bench.objective) if "objective" in method.uses else None,
        "student layers trained": ", ".join(map(str, made["layers"])) or "none",
        "data": {
            "benchmark": bench.config.benchmark.name,
            **{split: len(bench.splits[split]) for split in ("extract", "align", "train", "validation")},
            "fingerprint": bench.digest("train"),
            **_dropped(session),
        },
        "teacher's answers": _answers(session),
        "kept of the teacher": _kept(session),
        "budget": made["budget"],
        "seed": str(bench.config.seed),
        "made by": made.get("provenance") or session.origin,
    }
    text = model_card(
        method=method.name,
        student=student,
        teacher=teacher if method.results or bench.answered else None,
        adapter=(folder / ADAPTER).is_dir(),
        recipe=recipe,
        command=session.command,
        scores=scores,
    )
    return without(text)


def _answers(session: Session) -> dict[str, Any] | None:
    """Return what the teacher was asked and what was kept of it; None where nothing was."""
    if "answer" not in session.results:
        return None
    config = session.bench.config
    return {
        "prompts": config.data.unlabelled or "of the train rows, in place of their labels",
        **session.results["answer"].meta["answers"],
        "keep": config.answer.keep,
        "train rows": len(session.bench.answered),
    }


def _kept(session: Session) -> str | None:
    """Return how much is kept of what the teacher said of the rows; None where nothing is."""
    about = session.results["align"].meta if "align" in session.results else {}
    size, tokens = about.get("kept_bytes", 0), about.get("kept_tokens", 0)
    if not size:
        return None
    return f"{size / max(tokens, 1):,.0f} bytes per token, {size / 1e6:,.1f} MB"


def _dropped(session: Session) -> dict[str, Any]:
    """Return how many rows were too long to train on, of how many; nothing where none was."""
    counts = {pool: f"{count} of {total}" for pool, (count, total) in session.bench.fitting.dropped.items()}
    return {"rows_too_long": counts} if counts else {}
