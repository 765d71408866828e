"""What an arm's quality costs, and how it learns beside the others: charts over all arms of a study.

arms ──> score over student tokens, and over seconds        ──> measures of its validations over optimiser steps
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

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
    plain_logarithm,
    wrapped,
)
from pkt.reporting.page.curves import Points, validations
from pkt.reporting.runs import Arm
from pkt.reporting.study import Study
from pkt.reporting.study_tables import BUDGET, cost_values

MEASURES = {
    "cross_entropy": "Cross-entropy of validation rows",
    "label_accuracy": "Share of the validation rows' answer tokens that are right",
}
COSTS = {"student ktokens": "student tokens, thousands", "seconds": "seconds, without evaluation"}
WIDE = 8  # times the smallest cost, from which on an axis is logarithmic
MOST = 12  # arms of a chart: of more, nobody can tell the lines apart
_COLOURS = (MARK, TEACHER, STUDENT, RIVAL, INK)
_MARKS = ("o", "s", "^", "D", "v", "P")
_LINES = ("-", "--", ":", "-.")
_WIDEST = 30  # letters of a line of a legend


def cost_charts(study: Study) -> tuple[Drawing, ...]:
    """Chart each arm's score over what it cost; nothing for a single arm."""
    found = [_cost_chart(study, column, label) for column, label in COSTS.items()]
    return tuple(drawing for drawing in found if drawing)


def _cost_chart(study: Study, column: str, label: str) -> Drawing | None:
    key, unit = BUDGET[column]
    scale = 100 if study.points else 1
    points: dict[str, tuple[float, float]] = {}
    for arm in study.arms[:MOST]:
        costs, score = cost_values(arm, key), study.score(arm, study.compared).value
        if costs and statistics.fmean(costs) > 0 and math.isfinite(score):
            points[arm.label] = statistics.fmean(costs) / unit, scale * score
    if len(points) < 2:
        return None
    figure = blank(4.2, 3.0)
    axes = figure.subplots()
    for index, (name, (cost, score)) in enumerate(points.items()):
        axes.plot(
            cost, score, _MARKS[index % len(_MARKS)], color=_colour(index), ms=6, ls="", label=_legend(name)
        )
    for arm in study.fixed:
        value = scale * study.score(arm, study.compared).value
        if math.isfinite(value):
            axes.axhline(value, color=INK, lw=0.8, ls=(0, (2, 2)))
            axes.text(
                1.0,
                value,
                arm.role,
                transform=axes.get_yaxis_transform(),
                fontsize=8,
                ha="right",
                va="bottom",
            )
    costs_of_all = [cost for cost, _ in points.values()]
    if max(costs_of_all) > WIDE * min(costs_of_all):
        axes.set_xscale("log")
        plain_logarithm(axes.xaxis)
    axes.set_xlabel(label, fontsize=8)
    axes.set_ylabel(as_text(study.measure), fontsize=8)
    _finish(figure, axes, points)
    told = "; ".join(f"{name}: {score:.3g} at {cost:.3g}" for name, (cost, score) in points.items())
    title = f"Score over {label.partition(',')[0]}{_of(study.arms)}"
    return Drawing(name=f"cost_{key}", title=title, alt=f"{label}: {told}", figure=figure)


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
    figure = blank(4.2, 3.0)
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
    told = "; ".join(f"{label} ends at {points[-1][1]:.3g}" for label, points in curves.items())
    return Drawing(
        name="validation" if measure == "cross_entropy" else f"validation_{measure}",
        title=f"{MEASURES[measure]} over steps, lowest seed of each arm{_of(arms)}",
        alt=told,
        figure=figure,
    )


def _of(arms: Sequence[Arm]) -> str:
    return f" (the best {MOST} of {len(arms)} arms)" if len(arms) > MOST else ""


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _legend(label: str) -> str:
    return as_text(wrapped(label, _WIDEST))


def _finish(figure: Any, axes: Any, named: Mapping[str, tuple[float, float] | Points]) -> None:
    axes.tick_params(which="both", labelsize=8)
    axes.grid(color=QUIET, lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 2 if max(map(len, named)) <= _WIDEST else 1
    figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
