"""What an arm's quality costs, and how it learns beside the others: charts over all arms of a study.

arms ──> score over student tokens, and over seconds        ──> measures of its validations over optimiser steps
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pkt.evaluation.statistics import Estimate
from pkt.reporting.figures import (
    INK,
    MARK,
    QUIET,
    RIVAL,
    STUDENT,
    TEACHER,
    Drawing,
    as_text,
    blank,
    legend_columns,
    legend_height,
    plain_logarithm,
    wrapped,
)
from pkt.reporting.page.curves import validations
from pkt.reporting.runs import Arm
from pkt.reporting.study import Study
from pkt.reporting.study_tables import BUDGET, cost_values

MEASURES = {
    "cross_entropy": "validation cross-entropy",
    "label_accuracy": "validation label accuracy",
}
COSTS = {"student ktokens": "student tokens, thousands", "seconds": "seconds, without evaluation"}
WIDE = 8  # times the smallest cost, from which on an axis is logarithmic
MOST = 12  # arms of a chart: of more, nobody can tell the lines apart
_COLOURS = (MARK, TEACHER, STUDENT, RIVAL, INK)
_MARKS = ("o", "s", "^", "D", "v", "P")
_LINES = ("-", "--", ":", "-.")
_WIDEST = 52  # letters of a line of a legend; half of them where it has two columns
_AXES = 2.7  # inches of what is above the legend
_ROOM = 0.12  # above and below all scores, as a share of what they span


def cost_charts(study: Study) -> tuple[Drawing, ...]:
    """Chart each arm's score over what it cost; nothing for a single arm."""
    found = [_cost_chart(study, column, label) for column, label in COSTS.items()]
    return tuple(drawing for drawing in found if drawing)


def _cost_chart(study: Study, column: str, label: str) -> Drawing | None:
    key, unit = BUDGET[column]
    points: dict[str, tuple[float, Estimate]] = {}
    for arm in study.arms[:MOST]:
        costs, score = cost_values(arm, key), _scaled(study, arm)
        if costs and statistics.fmean(costs) > 0 and math.isfinite(score.value):
            points[arm.label] = statistics.fmean(costs) / unit, score
    if len(points) < 2:
        return None
    figure = blank(4.2, _AXES + legend_height(points, _WIDEST))
    axes = figure.subplots()
    for index, (name, (cost, score)) in enumerate(points.items()):
        colour, error = _colour(index), _error(score)
        axes.vlines(cost, score.value - error, score.value + error, color=colour, lw=1.2)
        mark = _MARKS[index % len(_MARKS)]
        axes.plot(cost, score.value, mark, color=colour, ms=6, ls="", label=_legend(name))
    _fixed_lines(axes, study, [score for _, score in points.values()])
    costs_of_all = [cost for cost, _ in points.values()]
    if max(costs_of_all) > WIDE * min(costs_of_all):
        axes.set_xscale("log")
        plain_logarithm(axes.xaxis)
    axes.set_xlabel(label, fontsize=8)
    axes.set_ylabel(as_text(study.measure), fontsize=8)
    _finish(figure, axes, points)
    told = "; ".join(f"{name}: {score.value:.3g} at {cost:.3g}" for name, (cost, score) in points.items())
    title = f"Score over {label.partition(',')[0]}, ± a standard error{_of(study.arms)}"
    return Drawing(name=f"cost_{key}", title=title, alt=f"{label}: {told}", figure=figure)


def _scaled(study: Study, arm: Arm) -> Estimate:
    """Return an arm's score in the units of its axis."""
    score, scale = study.score(arm, study.compared), 100 if study.points else 1
    return Estimate(value=scale * score.value, stderr=scale * score.stderr)


def _error(score: Estimate) -> float:
    return score.stderr if math.isfinite(score.stderr) else 0.0


def _fixed_lines(axes: Any, study: Study, scores: Sequence[Estimate]) -> None:
    """Draw a line at each untouched model's score, or name it at the edge where it is far from all arms."""
    fixed = {arm.role: _scaled(study, arm).value for arm in study.fixed}
    known = [fixed["student"]] if math.isfinite(fixed.get("student", math.nan)) else []
    ends = [score.value + side * _error(score) for score in scores for side in (-1, 1)] + known
    span = max(ends) - min(ends) or 1.0
    low, high = min(ends) - span * _ROOM, max(ends) + span * _ROOM
    style = {"transform": axes.get_yaxis_transform(), "fontsize": 8}
    for role, value in fixed.items():
        if low - span < value < high + span:
            low, high = min(low, value - span * _ROOM), max(high, value + span * _ROOM)
            axes.axhline(value, color=INK, lw=0.8, ls=(0, (2, 2)))
            axes.text(1.0, value, role, ha="right", va="bottom", **style)
    axes.set_ylim(low, high)
    for role, value in fixed.items():
        if value > high or value < low:
            above = value > high
            arrow, at, side = ("↑", high, "top") if above else ("↓", low, "bottom")
            axes.text(0.01, at, f"{role} {value:.3g} {arrow}", ha="left", va=side, **style)


def validation_charts(arms: Sequence[Arm]) -> tuple[Drawing, ...]:
    """Draw each measure of the validations over steps, all arms' lowest seeds in one picture."""
    curves = {arm.label: validations(arm.first) for arm in arms[:MOST]}
    found = [_validation_chart(arms, curves, measure) for measure in MEASURES]
    return tuple(drawing for drawing in found if drawing)


def _validation_chart(
    arms: Sequence[Arm], validated: Mapping[str, Sequence[tuple[float, Mapping[str, float]]]], measure: str
) -> Drawing | None:
    """Draw one measure; nothing where no arm was validated twice."""
    curves = {label: [(step, own[measure]) for step, own in points if measure in own]
              for label, points in validated.items()}  # fmt: skip
    curves = {label: points for label, points in curves.items() if len(points) > 1}
    if not curves:
        return None
    figure = blank(4.2, _AXES + legend_height(curves, _WIDEST))
    axes = figure.subplots()
    for index, (label, points) in enumerate(curves.items()):
        line = _LINES[index // len(_COLOURS) % len(_LINES)]
        style: dict[str, Any] = {
            "color": _colour(index),
            "ls": line,
            "lw": 1.4,
            "marker": _MARKS[index % 6],
            "ms": 3.5,
        }
        axes.plot(*zip(*points, strict=True), label=_legend(label), **style)
    axes.set_xlabel("optimiser step", fontsize=8)
    axes.set_ylabel(MEASURES[measure], fontsize=8)
    _finish(figure, axes, curves)
    whose = f"lowest seed of each arm{_of(arms)}" if len(arms) > 1 else f"seed {arms[0].first['seed']}"
    told = "; ".join(f"{label} ends at {points[-1][1]:.3g}" for label, points in curves.items())
    return Drawing(
        name="validation" if measure == "cross_entropy" else f"validation_{measure}",
        title=f"{MEASURES[measure].capitalize()} over steps, {whose}",
        alt=told,
        figure=figure,
    )


def _of(arms: Sequence[Arm]) -> str:
    return f" (the best {MOST} of {len(arms)} arms)" if len(arms) > MOST else ""


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _legend(label: str) -> str:
    return as_text(wrapped(label, _WIDEST))


def _finish(figure: Any, axes: Any, named: Mapping[str, object]) -> None:
    axes.tick_params(which="both", labelsize=8)
    axes.grid(color=QUIET, lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=legend_columns(named, _WIDEST), fontsize=8, frameon=False)
