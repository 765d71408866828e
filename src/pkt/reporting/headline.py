"""The headline table of one run: who scored what, and how much of the gap the transfer closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pkt.evaluation.results import Evaluation
from pkt.evaluation.statistics import mean_estimate
from pkt.reporting.cells import SHARES, score_cell, score_head
from pkt.reporting.gaps import Scores, Share, estimate_of
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
    rows = [(names.get(role, role), *_cells(own)) for role, own in scores.items()]
    if shares:
        rows.append(("gap closed", *(share.cell for share in shares.values())))
    first = next(iter(scores.values()))
    heads = [
        score_head(task, score["metric"], higher_is_better=score["higher_is_better"])
        for task, score in first.items()
    ]
    title = "scores ± standard error; gap closed: share of teacher minus student"
    if any(share.interval for share in shares.values()):
        title += " [95 % interval on the same rows]"
    return Table(title=split_heading(split) + title, columns=("", *heads, "mean"), rows=tuple(rows))


def split_heading(split: str) -> str:
    """Return what a title starts with, so that nobody takes another split's numbers for those of the test rows."""
    return "" if split == "test" else f"{split.upper()} rows, not test: "


def _cells(scores: Scores) -> list[str]:
    estimates = {task: estimate_of(score) for task, score in scores.items()}
    cells = [score_cell(estimates[task], score["metric"]) for task, score in scores.items()]
    if not all(score["metric"] in SHARES for score in scores.values()):
        return [*cells, "–"]
    return [*cells, score_cell(mean_estimate(list(estimates.values())), SHARES[0])]
