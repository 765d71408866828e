"""Stage 5: what the user sees and keeps of a run: table, figures, card, tracker entries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pkt import console
from pkt.evaluation.harness import Evaluation
from pkt.mapping import LayerPair
from pkt.methods.base import Alignment, Extraction
from pkt.reporting.card import model_card
from pkt.reporting.figures import attribution_figure, pairing_figure
from pkt.reporting.table import gap_estimates, headline, primary_scores
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
        "settings": {
            "method": session.method.name,
            "mapping": type(session.bench.mapping).__name__.lower() if uses_teacher(session) else None,
            "semantics": type(session.bench.semantics).__name__.lower() if uses_teacher(session) else None,
            "output": session.bench.objective.output,
        },
        "command": session.command,
        "scores": {
            role: {task: asdict(score) for task, score in scores.items()} for role, scores in primary.items()
        },
        "gap_closed": {task: asdict(share) for task, share in gaps.items()} if gaps else None,
        "budget": _budget(session),
        "stages": session.reports,
    }
    (session.run_dir / "scores.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    (session.run_dir / "table.md").write_text(table.markdown() + "\n", encoding="utf-8")
    session.tracker.table("eval/scores", table.columns, table.rows)
    session.tracker.summary(_flat(primary, gaps))
    console.say("")
    console.table(table.title, table.columns, table.rows)
    if "transferred" in evaluations and session.bench.config.eval.checkpoint is None:
        if uses_teacher(session):
            _track_layers(session)
        _finish_checkpoint(session, table.markdown())
    _where(session)


def _flat(primary: Mapping[str, Mapping[str, Any]], gaps: Mapping[str, Any] | None) -> dict[str, float]:
    flat = {
        f"eval/{role}/{task}": score.value for role, tasks in primary.items() for task, score in tasks.items()
    }
    return flat | {f"eval/gap_closed/{task}": share.value for task, share in (gaps or {}).items()}


def _budget(session: Session) -> dict[str, Any]:
    """Return what the checkpoint cost, from the manifests: the same whether a stage was reused or not."""
    if "transfer" not in {entry["stage"] for entry in session.reports}:
        return {}
    made = transfer_stage.transfer(session)
    before = [extract_stage.extract(session), align_stage.align(session)] if uses_teacher(session) else []
    return {
        **made.meta["budget"],
        "teacher_forward_tokens": sum(artifact.meta["teacher_forward_tokens"] for artifact in before),
        "seconds": sum(artifact.meta["seconds"] for artifact in [*before, made]),
        "peak_mb": max(artifact.meta["peak_mb"] for artifact in [*before, made]),
    }


def uses_teacher(session: Session) -> bool:
    """Whether the method takes anything from a teacher."""
    return "align" in session.method.stages


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
    """Print and track pairs and attribution."""
    extraction = extract_stage.load(artifact)
    columns, rows = pair_rows(extraction)
    session.tracker.table("extract/pairs", columns, rows)
    console.table(f"layer pairs at the {extraction.interface} interface", columns, rows)
    _draw(session, extraction)


def _track_layers(session: Session) -> None:
    """Track pairs, attribution and map quality of a whole run; the console showed none of them."""
    extraction = extract_stage.load(extract_stage.extract(session))
    session.tracker.table("extract/pairs", *pair_rows(extraction))
    session.tracker.table("align/quality", *quality_rows(align_stage.load(align_stage.align(session))))
    _draw(session, extraction)


def _draw(session: Session, extraction: Extraction) -> None:
    chosen = sorted({layer for pair in extraction.pairs for layer in pair.teacher})
    if extraction.scores is not None:
        figure = attribution_figure(extraction.scores, chosen, session.run_dir / "attribution.png")
        session.tracker.figure("extract/attribution", figure)
    figure = pairing_figure(
        [(pair.student, pair.teacher) for pair in extraction.pairs],
        session.bench.teacher_config.num_hidden_layers,
        session.bench.student_config.num_hidden_layers,
        session.run_dir / "pairing.png",
    )
    session.tracker.figure("extract/pairing", figure)


def pair_rows(extraction: Extraction) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return column names and one row of text per pair."""

    def score(pair: LayerPair) -> str:
        if extraction.scores is None:
            return "not needed"
        return " ".join(f"{extraction.scores[layer - 1]:.3g}" for layer in pair.teacher)

    return ("student layer", "teacher layer", "weight", "attribution"), [
        (str(p.student), " ".join(map(str, p.teacher)), " ".join(f"{w:.2f}" for w in p.weights), score(p))
        for p in extraction.pairs
    ]


def show_alignment(session: Session, artifact: Artifact) -> None:
    """Print and track the quality card of every map."""
    alignment = align_stage.load(artifact)
    columns, rows = quality_rows(alignment)
    session.tracker.table("align/quality", columns, rows)
    console.table(f"map quality on the align split ({alignment.positions} positions)", columns, rows)


def quality_rows(alignment: Alignment) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return column names and one row of text per map."""
    names = sorted({name for card in alignment.quality.values() for name in card})
    rows = [
        (
            str(pair.student),
            " ".join(map(str, pair.teacher)),
            *(f"{alignment.quality[pair.student].get(name, float('nan')):.4g}" for name in names),
        )
        for pair in alignment.pairs
    ]
    return ("student layer", "teacher layer", *names), rows


def show_transfer(session: Session, artifact: Artifact) -> None:
    """Print the last validation and where the checkpoint is."""
    metrics = json.loads((artifact.path / "metrics.json").read_text(encoding="utf-8"))
    validations = metrics["history"]["validations"]
    if validations:
        last = validations[-1]
        console.table("last validation", tuple(last), [tuple(f"{value:.4g}" for value in last.values())])
    _where(session)
