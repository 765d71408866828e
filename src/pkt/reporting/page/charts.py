"""Intervals as drawings.

A hollow mark is an interval that holds 0, which can be seen in black and white too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pkt.evaluation.paired import Interval
from pkt.reporting.figures import INK, MARK, QUIET, Drawing, as_text, blank, wrapped
from pkt.reporting.gaps import MEAN
from pkt.reporting.study import Study

_WIDEST = 26  # letters of a label beside an axis, or of an end's name
_WHOLE = 60  # letters of a line over an interval, where a label is too long to stand beside it
_INTERVAL, _LINE = 0.24, 0.14  # inches of an interval, and of a line of text over it
Row = tuple[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a chart of intervals is measured in.

    Attributes:
        label: under the axis.
        scale: what values are multiplied by.
        ends: values with a line of their own, and what it is called.
    """

    label: str
    scale: float
    ends: Mapping[float, str]


GAP = Axis(label="% of the gap closed", scale=100, ends={0.0: "student", 1.0: "teacher"})


def gap_charts(study: Study) -> tuple[Drawing, ...]:
    """Chart the arms' shares of the gap: the mean, then each task; of a single arm all in one chart."""
    columns = study.columns
    mean = {MEAN: columns.pop(MEAN)}  # of a single task it says nothing more
    columns = mean | columns if len(study.tasks) > 1 else columns
    shares = {
        (arm.label, name): share.interval
        for arm in study.arms
        for name, tasks in columns.items()
        if (share := study.share(arm, tasks)) and share.interval
    }
    if len(study.arms) == 1:
        rows = [(name, interval) for (_, name), interval in shares.items()]
        return _chart("gap", "Gap closed", rows, GAP)
    drawings: list[Drawing] = []
    for index, name in enumerate(columns):
        rows = [(label, interval) for (label, of), interval in shares.items() if of == name]
        title = f"Gap closed: {'mean over tasks' if name == MEAN else name}"
        drawings += _chart(f"gap_{index}", title, rows, GAP)
    return tuple(drawings)


def difference_charts(study: Study) -> tuple[Drawing, ...]:
    """Chart each arm's difference to the reference: the mean, then each task; the first task where there is no mean."""
    reference = study.reference.label
    axis = Axis(
        label=("points" if study.points else "in the score's own unit")
        + ("" if study.rises(study.compared[0]) else " (less is better)"),
        scale=100 if study.points else 1,
        ends={0.0: reference},
    )
    columns = [(study.measure, study.compared)]
    if len(study.compared) > 1:
        columns += [(task, (task,)) for task in study.tasks]
    drawings: list[Drawing] = []
    for index, (name, tasks) in enumerate(columns):
        others = [arm for arm in study.arms if arm.label != reference]
        rows = [(arm.label, gap) for arm in others if (gap := study.difference(arm, tasks=tasks))]
        drawings += _chart(f"difference_{index}", f"Difference to {reference}: {name}", rows, axis)
    return tuple(drawings)


def _chart(name: str, title: str, rows: Sequence[Row], axis: Axis) -> tuple[Drawing, ...]:
    """Draw intervals under each other, the first on top; nothing where there is none."""
    rows = [(label, interval) for label, interval in rows if math.isfinite(interval.value)]
    if not rows:
        return ()
    labels = [label for label, _ in rows]
    over = max(map(len, labels)) > _WIDEST
    places, height = _places([wrapped(label, _WHOLE) for label in labels] if over else [""] * len(rows))
    figure = blank(4.2, 0.9 + height)
    axes = figure.subplots()
    sides = ["center"] if len(axis.ends) == 1 else ["right", "left"]  # apart, however close the two lines are
    for (at, who), side in zip(axis.ends.items(), sides, strict=True):
        axes.axvline(axis.scale * at, color=INK, lw=0.8, ls=(0, (2, 2)))
        across, text = axes.get_xaxis_transform(), as_text(wrapped(who, _WIDEST))
        axes.text(axis.scale * at, 1.01, text, transform=across, ha=side, va="bottom", fontsize=8)
    for y, (_, interval) in zip(places, rows, strict=True):
        ends = (end if math.isfinite(end) else interval.value for end in (interval.low, interval.high))
        axes.plot([axis.scale * end for end in ends], [y, y], color=MARK, lw=1.6, solid_capstyle="butt")
        face = "#ffffff" if interval.holds_zero else MARK
        axes.plot(axis.scale * interval.value, y, "o", ms=6, mfc=face, mec=MARK, mew=1.4)
    axes.set_yticks(places, [""] * len(rows) if over else [as_text(label) for label in labels], fontsize=9)
    if over:
        _write_over(axes, labels, places)
    axes.set_ylim(height, 0)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=QUIET, lw=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.set_xlabel(axis.label, fontsize=8)
    return (Drawing(name=name, title=title, alt=_in_words(rows, axis), figure=figure),)


def _places(labels: Sequence[str]) -> tuple[list[float], float]:
    """Return where intervals stand below the lines of their labels, from the top, and how high all is, in inches."""
    places, height = [], 0.0
    for label in labels:
        height += _LINE * (label.count("\n") + 1) if label else 0.0
        places.append(height + _INTERVAL / 2)
        height += _INTERVAL
    return places, height


def _write_over(axes: Any, labels: Sequence[str], places: Sequence[float]) -> None:
    """Write each label over its interval, as wide as the picture."""
    ground = {"facecolor": "#ffffff", "edgecolor": "none", "pad": 0.5}  # no line goes through the letters
    for label, y in zip(labels, places, strict=True):
        text = as_text(wrapped(label, _WHOLE))
        at = (0.0, y - 0.4 * _INTERVAL)
        axes.text(*at, text, transform=axes.get_yaxis_transform(), fontsize=8, va="bottom", bbox=ground)


def _in_words(rows: Sequence[Row], axis: Axis) -> str:
    digits = 0 if axis is GAP else 1 if axis.scale == 100 else 3
    sentences = []
    for label, interval in rows:
        ends = (interval.value, interval.low, interval.high)
        value, low, high = (f"{axis.scale * number:.{digits}f}" for number in ends)
        shown = f"[{low}, {high}]" if interval.known else "(too few rows for an interval)"
        noise = ", inside the noise" if interval.holds_zero else ""
        sentences.append(f"{label} {value} {shown}{noise}")
    return f"Values in {axis.label} with 95 % intervals: {'; '.join(sentences)}"
