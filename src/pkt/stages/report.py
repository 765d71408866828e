"""Stage 5: show the results of a run, and keep them: table, figures, card, entries of the tracker."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pkt import console
from pkt.durable import sealed, write_atomically
from pkt.evaluation.results import Evaluation
from pkt.models.kept import told
from pkt.reporting.examples import example_tables
from pkt.reporting.figures import attribution_figure, pairing_figure, save
from pkt.reporting.gaps import MEAN, Share
from pkt.reporting.headline import headline, named_scores, split_heading
from pkt.reporting.page.write import write_run_page
from pkt.reporting.study import shares_of
from pkt.reporting.verdict import Verdict, verdict
from pkt.run_files import ADAPTER, CHECKPOINT, SCORES, TABLE
from pkt.secrets import hide
from pkt.stages import identity, steps
from pkt.stages.card import Scores, card
from pkt.stages.lineage import tell_artifacts
from pkt.stages.session import Session
from pkt.stages.shown import Shown
from pkt.table import Table
from pkt.tracking.open import sweep_name

CHAIN = ("extract", "answer", "align", "transfer")  # the stages that make a checkpoint


def report(session: Session, evaluations: Mapping[str, Evaluation]) -> float | None:
    """Print the headline table and leave it, the scores and the card in the run folder and the tracker.

    Returns:
        The mean share of the gap closed on validation rows, for a sweeper to optimise; None on test rows, by which
        nothing may be chosen, and where it was not measured.
    """
    split = session.bench.config.eval.split
    summary = _summary(session, evaluations)
    placed = summary | {"folder": str(session.run_dir)}
    shares = shares_of(placed)
    table = headline(summary["scores"], shares, summary["method"], split=split)
    summary["gap_closed"] = {task: share.numbers() for task, share in shares.items() if task != MEAN} or None
    summary["mean_gap_closed"] = shares[MEAN].numbers() if shares else None
    write_atomically(session.run_dir / SCORES, sealed(_numbers(hide(summary))))
    write_atomically(session.run_dir / TABLE, f"{split_heading(split)}{table.markdown()}\n")
    _track_scores(session, evaluations, table, summary)
    console.say("")
    console.table(table.title, table.columns, table.rows)
    if "transferred" in evaluations and session.bench.config.eval.checkpoint is None:
        _track_results(session)
        steps.replay(session)
        if split == "test":
            told = f"{table.title}\n\n{table.markdown()}"
            _finish_checkpoint(session, told, summary["scores"]["transferred"])
    tell_artifacts(session)
    _where(session)
    if "transferred" in evaluations and sweep_name() is None:  # a sweep has a page over all its jobs
        console.say(f"{'report':<11}{write_run_page(session.run_dir)}")
        if (
            session.bench.config.eval.checkpoint is None
        ):  # of another one pkt does not know what was done to it
            _conclude(verdict(placed))
    return _objective(summary, shares[MEAN]) if split != "test" and shares else None


def _conclude(found: Verdict | None) -> None:
    """Say in a sentence what a run comes to."""
    if found is not None:
        console.say(f"{'result':<11}{found.sentence}")
        console.say(f"{'next':<11}{found.remedy}")


def _objective(summary: Mapping[str, Any], share: Share) -> float | None:
    """Return what a sweeper optimises: NaN where any score is, which a mean over the other tasks would hide."""
    values = [score["value"] for tasks in summary["scores"].values() for score in tasks.values()]
    if any(map(math.isnan, values)):
        return math.nan
    return share.estimate.value if share.known else None


def _summary(session: Session, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Return what `scores.json` holds, without the shares of the gap."""
    config = session.bench.config
    return {
        "method": session.method.name
        if config.eval.checkpoint is None
        else f"checkpoint {config.eval.checkpoint}",
        "model": config.model.name,
        "benchmark": config.benchmark.name,
        "split": config.eval.split,
        "seed": config.seed,
        "settings": _settings(session),
        "study": identity.study(session),
        "arm": identity.arm(session),
        "names": _names(session),
        "command": session.command,
        "choices": dict(session.choices),
        "scores": {role: named_scores(evaluation) for role, evaluation in evaluations.items()},
        "decoding": {role: evaluation.decoding for role, evaluation in evaluations.items()},
        "notes": session.bench.notes,
        "budget": _budget(session),
        "stages": session.reports,
        "layers": {role: session.bench.outline(role).num_hidden_layers for role in ("teacher", "student")},
        # where the answers behind the scores are
        "store": os.path.relpath(session.store.root, session.run_dir),
    }


def _numbers(value: Any) -> Any:
    """Return plain data as JSON has it: null for what is no number."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _names(session: Session) -> dict[str, str]:
    """Return what the models and the test file are called, for titles; they decide nothing."""
    config, found = session.bench.config, {}
    for role in ("teacher", "student"):
        spec = getattr(session.bench.pair, role)
        kept = f" ({what})" if (what := told(spec)) else ""
        found[role] = f"{spec.checkpoint or config.model.teacher.checkpoint}{kept}"
    return found | ({"test": str(config.data.test)} if config.data.test else {})


def _settings(session: Session) -> dict[str, Any]:
    """Return everything that decides a run's result besides its seed, by its key on the command line."""
    config = session.bench.config
    if config.eval.checkpoint is not None:
        return {"model": config.model.name, "eval.checkpoint": str(config.eval.checkpoint)}
    sizes = {f"data.sizes.{split}": count for split, count in asdict(config.data.sizes).items() if count}
    sizes |= {"data.unlabelled": config.data.unlabelled} if config.data.unlabelled else {}
    named = {"method": session.method.name, "model": config.model.name} | sizes | session.plan.settings
    return {key: value for key, value in named.items() if key not in session.seeded}


def _track_scores(
    session: Session, evaluations: Mapping[str, Evaluation], table: Table, summary: Mapping[str, Any]
) -> None:
    """Give the tracker the table, answered rows, and every number of the summary."""
    split = session.bench.config.eval.split
    prefix = "eval" if split == "test" else f"eval_{split}"
    session.tracker.table(f"{prefix}/scores", table.columns, table.rows)
    for task, examples in example_tables(evaluations, session.bench.config.tracker.examples).items():
        session.tracker.table(f"{prefix}/examples/{task}", examples.columns, examples.rows)
    session.tracker.summary(_flat(summary, prefix))


def _flat(summary: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return every score, its standard error, the shares with their intervals, and the budget, by name."""
    flat: dict[str, float] = {}
    for role, tasks in summary["scores"].items():
        for task, score in tasks.items():
            flat[f"{prefix}/{role}/{task}"] = score["value"]
            flat[f"{prefix}/{role}/{task}/stderr"] = score["stderr"]
    shares = {
        **(summary["gap_closed"] or {}),
        **({"mean": mean} if (mean := summary["mean_gap_closed"]) else {}),
    }
    for task, share in shares.items():
        flat[f"{prefix}/gap_closed/{task}"] = share["value"]
        flat |= {f"{prefix}/gap_closed/{task}/{name}": share[name] for name in share if name != "value"}
    flat |= {f"budget/{name}": value for name, value in summary["budget"].items()}
    return {
        name: value for name, value in flat.items() if math.isfinite(value)
    }  # a tracker would plot it as 0


def _budget(session: Session) -> dict[str, Any]:
    """Return what the checkpoint cost, from the manifests: the same whether a stage was reused or not."""
    if "transfer" not in session.results:
        return {}
    made = [artifact for name, artifact in session.results.items() if session.plan[name].stage in CHAIN]
    return {
        **session.results["transfer"].meta["budget"],
        **_answers(session),
        "teacher_forward_tokens": sum(artifact.meta["teacher_forward_tokens"] for artifact in made),
        "seconds": sum(artifact.meta["seconds"] for artifact in made),
        "peak_mb": max(artifact.meta["peak_mb"] for artifact in made),
        "stored_bytes": sum(artifact.size for artifact in made),
    }


def _answers(session: Session) -> dict[str, Any]:
    """Return what the teacher answered, where it did."""
    if "answer" not in session.results:
        return {}
    told = session.results["answer"].meta["answers"]
    return {"prompts_asked": told["asked"], "teacher_generated_tokens": told["generated_tokens"]}


def _finish_checkpoint(session: Session, table: str, scores: Scores) -> None:
    """Write the measured scores into the cards of the checkpoint and its adapter."""
    artifact = session.results["transfer"]
    for place in (CHECKPOINT, ADAPTER):
        if (artifact.path / place).is_dir():
            text = card(session, artifact.path, artifact.meta, place, table=table, scores=scores)
            session.store.replace(artifact, f"{place}/README.md", text)


def _where(session: Session) -> None:
    lines = {"run": session.run_dir, "store": session.store.root}
    if "transfer" in session.results:
        lines["checkpoint"] = session.results["transfer"].path / CHECKPOINT
    for name, path in lines.items():
        console.say(f"{name:<11}{path}")


def show_extraction(session: Session) -> None:
    """Print, draw and track what was taken from the teacher."""
    extraction = session.shown("extract")
    _track(session, "extract", extraction.tables, shown=True)
    _draw(session, extraction)
    tell_artifacts(session)


def show_alignment(session: Session) -> None:
    """Print and track the tables of the alignment."""
    _track(session, "align", session.shown("align").tables, shown=True)
    tell_artifacts(session)


def _track_results(session: Session) -> None:
    """Track and draw what the stages before `transfer` found; the console of a whole run shows none of it."""
    for name in session.method.results:
        result = session.shown(name)
        _track(session, name, result.tables, shown=False)
        if name == "extract":
            _draw(session, result)


def _track(session: Session, stage: str, tables: Sequence[Table], *, shown: bool) -> None:
    for table in tables:
        session.tracker.table(f"{stage}/{table.title}", table.columns, table.rows)
        if shown:
            console.table(table.title, table.columns, table.rows)


def _draw(session: Session, extraction: Shown) -> None:
    chosen = sorted({layer for pair in extraction.pairs for layer in pair.teacher})
    if extraction.scores is not None:
        drawing = replace(attribution_figure(extraction.scores, chosen), about=identity.about(session))
        session.tracker.figure("extract/attribution", save(drawing, session.run_dir))
    drawing = pairing_figure(
        [(pair.student, pair.teacher) for pair in extraction.pairs],
        *(session.bench.outline(role).num_hidden_layers for role in ("teacher", "student")),
    )
    drawing = replace(drawing, about=identity.about(session))
    session.tracker.figure("extract/pairing", save(drawing, session.run_dir))


def show_transfer(session: Session) -> None:
    """Print the last validation and where the checkpoint is."""
    metrics = json.loads((session.results["transfer"].path / "metrics.json").read_text(encoding="utf-8"))
    validations = metrics["history"]["validations"]
    if validations:
        last = validations[-1]
        console.table("last validation", tuple(last), [tuple(f"{value:.4g}" for value in last.values())])
    session.tracker.summary({f"budget/{name}": value for name, value in _budget(session).items()})
    steps.replay(session)
    tell_artifacts(session)
    _where(session)
