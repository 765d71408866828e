"""The card of a checkpoint: where it comes from, how it was made, and what it scored, as the hub reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt.mapping import LayerPair
from pkt.methods.base import described
from pkt.models.ancestry import handed_on, hub_id
from pkt.models.kept import told
from pkt.reporting.card import header, model_card, row_counts
from pkt.run_files import ADAPTER, CHECKPOINT
from pkt.secrets import without
from pkt.stages.session import Session
from pkt.tasks.splits import published

Scores = Mapping[str, Mapping[str, Any]]
"""Task -> metric, value, n and so on, as `scores.json` has them for one model."""


def card(
    session: Session,
    folder: Path,
    made: Mapping[str, Any],
    place: str = CHECKPOINT,
    *,
    table: str | None = None,
    scores: Scores | None = None,
) -> str:
    """Return the card of a checkpoint, or of its adapter.

    Args:
        session: the request.
        folder: what the stage has left, or is about to.
        made: the ``layers`` that were trained and the ``budget``, and once the result is there who made it.
        place: the folder in it that the card lies in.
        table: the scores as Markdown, where they are known.
        scores: the same, of the transferred student, by task.
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
            **dropped(session),
        },
        "teacher's answers": _answers(session),
        "kept of the teacher": _kept(session),
        "budget": made["budget"],
        "seed": str(bench.config.seed),
        "made by": made.get("provenance") or session.origin,
    }
    taught_by = teacher if method.results or bench.answered else None
    text = model_card(
        header=_header(session, taught_by is not None, place, scores or {}),
        method=method.name,
        student=student,
        teacher=taught_by,
        how=_how(place, adapter=(folder / ADAPTER).is_dir()),
        recipe=recipe,
        command=session.command,
        scores=f"{table}\n\n{row_counts(scores or {})}".rstrip() if table else None,
    )
    return without(text)


def _how(place: str, *, adapter: bool) -> str:
    """Say how the folder is loaded."""
    if place == ADAPTER:
        return (
            "Load it with peft's `AutoPeftModelForCausalLM.from_pretrained(<this folder>)`; the student with the "
            f"update merged in lies beside this folder in `{CHECKPOINT}/`."
        )
    beside = f", and the PEFT adapter lies beside this folder in `{ADAPTER}/`." if adapter else "."
    return (
        f"Load it with `AutoModelForCausalLM.from_pretrained(<this folder>)`; the update is merged in{beside}"
    )


def _header(session: Session, taught: bool, place: str, scores: Scores) -> dict[str, Any]:
    """Return what the hub reads of a card: names that it knows, and no others."""
    bench, pair = session.bench, session.bench.config.model
    base, who = (pair.teacher, "teacher") if pair.student.init == "prune" else (pair.student, "student")
    return header(
        method=session.method.name,
        adapter=place == ADAPTER,
        base_model=hub_id(base, who),
        teacher=hub_id(pair.teacher, "teacher") if taught else None,
        datasets=published(bench.config.benchmark, bench.config.data),
        more=handed_on(base, who),
        name=f"{pair.name}-{session.method.name}",
        scores=scores if bench.config.eval.split == "test" else {},
    )


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


def dropped(session: Session) -> dict[str, Any]:
    """Return how many rows were too long to train on, of how many; nothing where none was."""
    counts = {pool: f"{count} of {total}" for pool, (count, total) in session.bench.fitting.dropped.items()}
    return {"rows_too_long": counts} if counts else {}
