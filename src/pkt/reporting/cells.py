"""How numbers are written in tables: scores with standard errors, differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pkt.evaluation.paired import Interval
from pkt.evaluation.statistics import Estimate
from pkt.reporting.metrics import is_share


def score_cell(estimate: Estimate, metric: str) -> str:
    """Return ``72.4 ± 1.2`` (per cent) for shares of right answers, ``1.234 ± 0.012`` for the rest.

    An error that is not known, such as that of a single row, is a question mark; a score that is no number is ``nan``.
    """
    scale, digits = (100, 1) if is_share(metric) else (1, 3)
    if not math.isfinite(estimate.value):
        return "nan"
    known = math.isfinite(estimate.stderr)
    return f"{scale * estimate.value:.{digits}f} ± " + (
        f"{scale * estimate.stderr:.{digits}f}" if known else "?"
    )


def score_head(name: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the head of a score's column: with its metric where its task has several, an arrow where less is better.

    Args:
        name: of the score.
        scores: a model's, by name.
    """
    own = scores[name]
    several = sum(score["task"] == own["task"] for score in scores.values()) > 1
    head = f"{name} ({own['metric']})" if several and name == own["task"] else name
    return head if is_share(own["metric"]) or own["higher_is_better"] else f"{head} (↓)"


def difference_cell(difference: Interval, *, points: bool, ends: bool = True) -> str:
    """Return ``+1.2 [+0.3, +2.1]``, marked with ``≈`` where the interval holds zero or cannot be given.

    Where too few rows differ for an interval, ``≈ +50.0 (2 rows differ)``.

    Args:
        difference: of scores.
        points: the scores are shares, shown in per cent.
        ends: show the interval.
    """
    scale, digits = (100, 1) if points else (1, 3)
    value, low, high = (
        f"{round(scale * number, digits) + 0.0:+.{digits}f}"  # + 0.0: no -0.0
        for number in (difference.value, difference.low, difference.high)
    )
    shown = f" [{low}, {high}]"
    if not difference.known:
        shown = " (no interval)" if difference.differing is None else f" ({difference.differing} rows differ)"
    return ("≈ " if difference.holds_zero else "") + value + (shown if ends else "")
