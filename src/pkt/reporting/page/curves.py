"""Loss curves of a run, read back from the result of its training and drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pkt.durable import read_json
from pkt.reporting.answers import artifact_file
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
from pkt.reporting.runs import Arm, Run
from pkt.run_files import METRICS, STEPS
from pkt.table import Table
from pkt.tracking.jsonl import read_records

_WIDEST = 20  # letters of a term in a legend of two columns
_AXES = 2.3  # inches of what is above the legend
_BINS = 80  # points that are left of a curve: a page draws no more than that
_OF_VALIDATION = "validation/"
_VALIDATION = f"{_OF_VALIDATION}cross_entropy"
VALIDATION = "validation cross_entropy"  # what its curve is called
_STYLES = {
    "loss": (TEACHER, "-"),
    "loss_layer": (STUDENT, "--"),
    "loss_ce": (MARK, "-."),
    "loss_kl": (RIVAL, (0, (4, 1, 1, 1))),
    VALIDATION: (INK, ":"),
}
_MORE = ((INK, (0, (6, 2))), (TEACHER, (0, (1, 1))), (STUDENT, (0, (4, 1, 1, 1))))
Points = list[tuple[float, float]]


def loss_curves(run: Run) -> dict[str, Points]:
    """Return term -> (step, mean over neighbouring steps), and the validation's cross-entropy as it is."""
    curves: dict[str, Points] = {}
    for step, metrics in _steps(run):
        for name, value in metrics.items():
            if _is_number(value) and (name.startswith("loss") or name == _VALIDATION):
                curves.setdefault(name, []).append((step, value))
    terms = [points for name, points in curves.items() if name.startswith("loss_")]
    if len(terms) == 1 and len(terms[0]) == len(curves.get("loss", ())):
        del curves["loss"]  # one term: the sum says nothing more
    return {
        term.replace("/", " "): _thinned(points) for term, points in sorted(curves.items()) if len(points) > 1
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def validations(run: Run) -> list[tuple[float, dict[str, float]]]:
    """Return what each validation of a run's training measured: (step, measure -> value), those that are numbers."""
    found = []
    for step, metrics in _steps(run):
        own = {
            name.removeprefix(_OF_VALIDATION): value
            for name, value in metrics.items()
            if name.startswith(_OF_VALIDATION) and _is_number(value)
        }
        if own:
            found.append((step, own))
    return found


def last_validations(arms: Sequence[Arm]) -> Table | None:
    """Return what the last validation of each arm's lowest seed measured; None where there was none."""
    last = {arm.label: found[-1] for arm in arms if (found := validations(arm.first))}
    measures = list(dict.fromkeys(name for _, own in last.values() for name in own))
    rows = tuple(
        (label, f"{step:,.0f}", *(f"{own[name]:.4g}" if name in own else "–" for name in measures))
        for label, (step, own) in last.items()
    )
    title = "the last validation, of each arm's lowest seed"
    return Table(title=title, columns=("", "step", *measures), rows=rows) if rows else None


def _steps(run: Run) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Yield the metrics of every step of a run's training, in order.

    They are those of the result, which has all steps, whoever made it and however often that was stopped; where the
    store is elsewhere, or an older version made it, those that the run itself has told its tracker.
    """
    file = artifact_file(run, "transfer", STEPS) if "stages" in run else None
    stored = read_json(file) if file else {}
    if stored:
        yield from ((float(step), metrics) for step, metrics in stored.items())
        return
    for entry in read_records(Path(run["folder"]) / METRICS):
        if entry["kind"] == "metrics":
            stage = "transfer/"
            own = {
                name.removeprefix(stage): v for name, v in entry["values"].items() if name.startswith(stage)
            }
            yield float(entry["step"]), own


def _thinned(points: Points) -> Points:
    """Return at most `_BINS` points, each the mean of its neighbours."""
    width = math.ceil(len(points) / _BINS)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]


def curve_chart(title: str, curves: Mapping[str, Points], name: str) -> Drawing:
    """Draw losses over optimiser steps, a line per term, on a logarithmic axis where all are positive.

    Args:
        title: of the drawing.
        curves: term -> (step, value).
        name: of the drawing.
    """
    from matplotlib.ticker import NullLocator

    figure = blank(3.8, _AXES + legend_height(curves, 2 * _WIDEST))
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
    columns = legend_columns(curves, 2 * _WIDEST)
    figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False, handlelength=2.6)
    ends = "; ".join(
        f"{term} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for term, points in curves.items()
    )
    return Drawing(name=name, title=title, alt=f"Losses: {ends}", figure=figure)
