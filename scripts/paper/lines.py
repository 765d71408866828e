"""A picture of scores over labels or steps: a line per method, and where teacher and untouched student are.

studies, one per place on the axis -> Drawing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from pkt.evaluation.statistics import Estimate
from pkt.reporting.figures import INK, MARK, QUIET, RIVAL, STUDENT, TEACHER, Drawing, plain_axes
from pkt.reporting.study import Study

STYLES: Mapping[str, tuple[str, str]] = {
    "sft": (INK, "s"),
    "seqkd": (STUDENT, "v"),
    "kd": (TEACHER, "^"),
    "hidden_kd": (RIVAL, "D"),
    "semalign_fisher": (MARK, "p"),
    "semalign_geometry": (MARK, "X"),
    "semalign_joint": (MARK, "o"),
}
_APART = 1.02  # neighbouring lines stand apart by this factor, so that their error bars can be told apart
Points = Sequence[tuple[int, Estimate]]


def line_drawing(name: str, title: str, axis: str, studies: Mapping[int, Study]) -> Drawing:
    """Draw the score of every arm, with one standard error over seeds and rows.

    Arms of one label are a line; of a method's lines the first is solid, and one with more words to its name dashed.

    Args:
        name: of the drawing.
        title: above it.
        axis: what `studies` are placed by, under the axis; logarithmic.
        studies: at least two, with the same models and rows.
    """
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axes = figure.subplots()
    first = next(iter(studies.values()))
    scale = 100 if first.points else 1
    found = lines(studies)
    for place, (label, points) in enumerate(found.items()):
        _line(axes, label, points, scale, _APART ** (place - (len(found) - 1) / 2))
    _ends(axes, first, scale)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(studies)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(axis, fontsize=9)
    axes.set_ylabel("mean over tasks, %" if first.averaged else first.measure, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color=QUIET, lw=0.5)
    axes.set_axisbelow(True)
    plain_axes(axes)
    figure.legend(fontsize=8, frameon=False, labelcolor=INK, loc="outside lower center", ncols=2)
    return Drawing(name=name, title=title, alt=_in_words(axis, found, scale), figure=figure)


def lines(studies: Mapping[int, Study]) -> dict[str, list[tuple[int, Estimate]]]:
    """Return label -> where on the axis and what score, in the order of the studies' arms."""
    found: dict[str, list[tuple[int, Estimate]]] = {}
    for at, study in studies.items():
        for arm in study.as_read:
            found.setdefault(arm.label, []).append((at, study.score(arm, study.compared)))
    return found


def _line(axes: Any, label: str, points: Points, scale: float, shift: float) -> None:
    method, _, form = label.partition(" (")
    colour, marker = STYLES[method]
    axes.errorbar(
        [at * shift for at, _ in points],
        [scale * score.value for _, score in points],
        yerr=[scale * score.stderr for _, score in points],
        label=label,
        color=colour,
        marker=marker,
        markersize=5,
        markerfacecolor="#ffffff" if form else colour,
        linestyle=(0, (4, 2)) if form else "-",
        linewidth=1.5,
        elinewidth=0.9,
    )


def _ends(axes: Any, study: Study, scale: float) -> None:
    """Mark where teacher and untouched student are, were they scored."""
    for arm in study.fixed:
        at = scale * study.score(arm, study.compared).value
        axes.axhline(at, color=INK, lw=0.8, ls=(0, (2, 2)), zorder=1)
        across = axes.get_yaxis_transform()
        axes.text(1.01, at, arm.label, transform=across, ha="left", va="center", fontsize=8, color=INK)


def _in_words(axis: str, found: Mapping[str, Points], scale: float) -> str:
    digits = 1 if scale > 1 else 3
    told = [
        f"{label} {', '.join(f'{scale * score.value:.{digits}f} at {at:,}' for at, score in points)}"
        for label, points in found.items()
    ]
    return f"Scores over {axis}: {'; '.join(told)}"
