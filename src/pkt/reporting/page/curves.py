"""Loss curves of a run, read back from its `metrics.jsonl` and drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from pkt.reporting.figures import (
    INK,
    MARK,
    QUIET,
    STUDENT,
    TEACHER,
    Drawing,
    as_text,
    blank,
    plain_logarithm,
    wrapped,
)
from pkt.reporting.runs import Run
from pkt.run_files import METRICS
from pkt.tracking.jsonl import read_records

_WIDEST = 20  # letters of a term in a legend of two columns
_BINS = 80  # points that are left of a curve: a page draws no more than that
_VALIDATION = "transfer/validation/cross_entropy"
VALIDATION = "validation cross_entropy"  # what its curve is called
_STYLES = {
    "loss": (TEACHER, "-"),
    "loss_layer": (STUDENT, "--"),
    "loss_ce": (MARK, "-."),
    VALIDATION: (INK, ":"),
}
_MORE = ((INK, (0, (6, 2))), (TEACHER, (0, (1, 1))), (STUDENT, (0, (4, 1, 1, 1))))
Points = list[tuple[float, float]]


def loss_curves(run: Run) -> dict[str, Points]:
    """Return term -> (step, mean over neighbouring steps), and the validation's cross-entropy as it is."""
    curves: dict[str, Points] = {}
    for entry in read_records(Path(run["folder"]) / METRICS):
        for name, value in entry["values"].items() if entry["kind"] == "metrics" else ():
            known = isinstance(value, int | float) and math.isfinite(value)
            if known and (name.startswith("transfer/loss") or name == _VALIDATION):
                curves.setdefault(name.removeprefix("transfer/"), []).append((float(entry["step"]), value))
    terms = [points for name, points in curves.items() if name.startswith("loss_")]
    if len(terms) == 1 and len(terms[0]) == len(curves.get("loss", ())):
        del curves["loss"]  # one term: the sum says nothing more
    return {
        term.replace("/", " "): _thinned(points) for term, points in sorted(curves.items()) if len(points) > 1
    }


def _thinned(points: Points) -> Points:
    """Return at most `_BINS` points, each the mean of its neighbours."""
    width = math.ceil(len(points) / _BINS)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]


def curve_chart(label: str, curves: Mapping[str, Points], name: str) -> Drawing:
    """Draw losses over optimiser steps, a line per term, on a logarithmic axis where all are positive.

    Args:
        label: whose curves they are.
        curves: term -> (step, value).
        name: of the drawing.
    """
    from matplotlib.ticker import NullLocator

    figure = blank(3.8, 2.6)
    axes = figure.subplots()
    for index, (term, points) in enumerate(curves.items()):
        colour, line = _STYLES.get(term, _MORE[index % len(_MORE)])
        steps, values = zip(*points, strict=True)
        mark = "o" if len(points) <= 12 else ""
        axes.plot(
            steps,
            values,
            color=colour,
            ls=line,
            lw=1.4,
            marker=mark,
            ms=4,
            label=as_text(wrapped(term, 2 * _WIDEST)),
        )
    if all(value > 0 for points in curves.values() for _, value in points):
        axes.set_yscale("log")
        plain_logarithm(axes.yaxis)
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("optimiser step", fontsize=8)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(axis="y", color=QUIET, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 2 if max(map(len, curves)) <= _WIDEST else 1
    figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False, handlelength=2.6)
    ends = "; ".join(
        f"{term} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for term, points in curves.items()
    )
    return Drawing(name=name, title=label, alt=f"Losses: {ends}", figure=figure)
