"""Stage 5: what the user sees and keeps of a run: table, figures, card, tracker entries."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pkt import console
from pkt.evaluation.harness import Evaluation
from pkt.methods.base import Extraction
from pkt.reporting.card import model_card
from pkt.reporting.figures import attribution_figure, pairing_figure, save
from pkt.reporting.table import Table, gap_estimates, headline, primary_scores
from pkt.stages import align as align_stage
from pkt.stages import extract as extract_stage
from pkt.stages import transfer as transfer_stage
from pkt.stages.session import Session
from pkt.store import Artifact


def report(session: Session, evaluations: Mapping[str, Evaluation]) -> None:
    """Print the headline table and leave it, the scores and the card in the run folder and the tracker."""
    table = headline(evaluations, session.method.name)
    primary = {role: primary_scores(evaluation) for role, evaluation in evaluations.items()}
    gaps = gap_estimates(primary)
    summary: dict[str, Any] = {
        "method": session.method.name,
        "model": session.bench.config.model.name,
        "benchmark": session.bench.config.benchmark.name,
        "seed": session.bench.config.seed,
        "settings": settings(session),
        "command": session.command,
        "scores": {
            role: {task: asdict(score) for task, score in scores.items()} for role, scores in primary.items()
        },
        "gap_closed": {task: asdict(share) for task, share in gaps.items()} if gaps else None,
        "budget": _budget(session),
        "stages": session.reports,
        "store": os.path.relpath(
            session.store.root, session.run_dir
        ),  # where the answers behind the scores are
    }
    (session.run_dir / "scores.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    (session.run_dir / "table.md").write_text(table.markdown() + "\n", encoding="utf-8")
    session.tracker.table("eval/scores", table.columns, table.rows)
    session.tracker.summary(_flat(primary, gaps))
    console.say("")
    console.table(table.title, table.columns, table.rows)
    if "transferred" in evaluations and session.bench.config.eval.checkpoint is None:
        _track_results(session)
        _finish_checkpoint(session, table.markdown())
    _where(session)


def _flat(primary: Mapping[str, Mapping[str, Any]], gaps: Mapping[str, Any] | None) -> dict[str, float]:
    flat = {
        f"eval/{role}/{task}": score.value for role, tasks in primary.items() for task, score in tasks.items()
    }
    return flat | {f"eval/gap_closed/{task}": share.value for task, share in (gaps or {}).items()}


def settings(session: Session) -> dict[str, Any]:
    """Return everything that a run's result depends on besides its seed, flat, as ``{"objective.layer": ...}``."""
    config, method = session.bench.config, session.method
    named: dict[str, Any] = {
        "method": method.name,
        "sizes": asdict(config.data.sizes),
        "model": config.model.name,
    }
    for stage in (*method.results, "transfer"):
        named |= method.settings(stage, session.bench)
    named.pop("seed", None)
    return dict(_flattened(named))


def _flattened(named: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in named.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _budget(session: Session) -> dict[str, Any]:
    """Return what the checkpoint cost, from the manifests: the same whether a stage was reused or not."""
    if "transfer" not in {entry["stage"] for entry in session.reports}:
        return {}
    made = [*results(session).values(), transfer_stage.transfer(session)]
    return {
        **made[-1].meta["budget"],
        "teacher_forward_tokens": sum(artifact.meta["teacher_forward_tokens"] for artifact in made),
        "seconds": sum(artifact.meta["seconds"] for artifact in made),
        "peak_mb": max(artifact.meta["peak_mb"] for artifact in made),
        "stored_bytes": sum(artifact.size for artifact in made),
    }


def results(session: Session) -> dict[str, Artifact]:
    """Return the artifacts of the stages before `transfer` that the method has."""
    stages = {"extract": extract_stage.extract, "align": align_stage.align}
    return {name: stage(session) for name, stage in stages.items() if session.has(name)}


def _finish_checkpoint(session: Session, scores: str) -> None:
    """Write the measured scores into the checkpoint's card and hand its manifest to the tracker."""
    artifact = transfer_stage.transfer(session)
    facts = transfer_stage.card_facts(session, artifact)
    session.store.replace(artifact, f"{transfer_stage.MODEL}/README.md", model_card(facts, scores=scores))
    session.tracker.artifact("checkpoint", "model", artifact.path / "manifest.json")


def _where(session: Session) -> None:
    lines = {"run": session.run_dir, "store": session.store.root}
    if any(entry["stage"] == "transfer" for entry in session.reports):
        lines["checkpoint"] = transfer_stage.transfer(session).path / transfer_stage.MODEL
    for name, path in lines.items():
        console.say(f"{name:<11}{path}")


def show_extraction(session: Session, artifact: Artifact) -> None:
    """Print, draw and track what was chosen."""
    extraction = extract_stage.load(session, artifact)
    _track(session, "extract", extraction.tables(), shown=True)
    _draw(session, extraction)


def show_alignment(session: Session, artifact: Artifact) -> None:
    """Print and track how well it reads in the student's space."""
    _track(session, "align", align_stage.load(session, artifact).tables(), shown=True)


def _track_results(session: Session) -> None:
    """Track and draw what the stages before `transfer` found; the console of a whole run shows none of it."""
    for name, artifact in results(session).items():
        result = session.method.results[name].load(artifact.path)
        _track(session, name, result.tables(), shown=False)
        if name == "extract":
            _draw(session, result)


def _track(session: Session, stage: str, tables: Sequence[Table], *, shown: bool) -> None:
    for table in tables:
        session.tracker.table(f"{stage}/{table.title}", table.columns, table.rows)
        if shown:
            console.table(table.title, table.columns, table.rows)


def _draw(session: Session, extraction: Extraction) -> None:
    chosen = sorted({layer for pair in extraction.pairs for layer in pair.teacher})
    if extraction.scores is not None:
        drawing = attribution_figure(extraction.scores, chosen)
        session.tracker.figure("extract/attribution", save(drawing, session.run_dir))
    drawing = pairing_figure(
        [(pair.student, pair.teacher) for pair in extraction.pairs],
        session.bench.teacher_config.num_hidden_layers,
        session.bench.student_config.num_hidden_layers,
    )
    session.tracker.figure("extract/pairing", save(drawing, session.run_dir))


def show_transfer(session: Session, artifact: Artifact) -> None:
    """Print the last validation and where the checkpoint is."""
    metrics = json.loads((artifact.path / "metrics.json").read_text(encoding="utf-8"))
    validations = metrics["history"]["validations"]
    if validations:
        last = validations[-1]
        console.table("last validation", tuple(last), [tuple(f"{value:.4g}" for value in last.values())])
    _where(session)
