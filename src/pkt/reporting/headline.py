"""The headline table of one run: who scored what, and how much of the gap the transfer closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pkt.evaluation.results import Evaluation
from pkt.evaluation.statistics import mean_of_all
from pkt.reporting.cells import score_cell, score_head
from pkt.reporting.gaps import MEAN, Scores, Share, estimate_of
from pkt.reporting.metrics import averaged, headlines
from pkt.table import Table


def named_scores(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return the scores as plain data by column: a task's first score under its name, others as ``task (metric)``."""
    scores: dict[str, dict[str, Any]] = {}
    for score in evaluation.scores:
        name = score.task if score.task not in scores else f"{score.task} ({score.metric})"
        scores[name] = asdict(score)
    return scores


def headline(
    scores: Mapping[str, Scores], shares: Mapping[str, Share], method: str, *, split: str = "test"
) -> Table:
    """Return one row per role and, where there are shares, one for the gap closed.

    Args:
        scores: role -> task -> score.
        shares: of the gap, per task and for the mean (`study.shares_of`).
        method: name shown for the transferred student.
        split: whose rows were scored; where they are not the test rows, the title names them.
    """
    names = {"transferred": f"student + {method}"}
    first = next(iter(scores.values()))
    rows = [(names.get(role, role), *_cells(own, first)) for role, own in scores.items()]
    if shares:
        known = (shares.get(column) for column in (*first, MEAN))
        rows.append(("gap closed", *(share.cell if share else "–" for share in known)))
    heads = [score_head(name, first) for name in first]
    title = "scores ± standard error; gap closed: share of teacher minus student"
    if any(share.interval for share in shares.values()):
        title += " [95 % interval on the same rows]"
    without = [f"{name}: {share.why}" for name, share in shares.items() if share.why and name != MEAN]
    if without:
        title += f"; –: no gap to close ({'; '.join(without)})"
    return Table(title=split_heading(split) + title, columns=("", *heads, "mean"), rows=tuple(rows))


def split_heading(split: str) -> str:
    """Return what a title starts with, so that nobody takes another split's numbers for those of the test rows."""
    return "" if split == "test" else f"{split.upper()} rows, not test: "


def _cells(scores: Scores, columns: Scores) -> list[str]:
    """Return a model's scores by the columns' tasks, and their mean where all are shares of right answers."""
    estimates = [estimate_of(scores.get(task)) for task in columns]
    metrics = [score["metric"] for score in columns.values()]
    cells = [score_cell(estimate, metric) for estimate, metric in zip(estimates, metrics, strict=True)]
    if not averaged(columns.values()):
        return [*cells, "–"]
    mean = mean_of_all([estimate_of(scores.get(task)) for task in headlines(columns)])
    return [*cells, score_cell(mean, metrics[0])]
