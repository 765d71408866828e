"""Loss curves of a run, read back from its `metrics.jsonl`."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

from pkt.reporting.runs import Run
from pkt.tracking.jsonl import METRICS, read_records

_BINS = 80  # points that are left of a curve: a page draws no more than that
_VALIDATION = "transfer/validation/cross_entropy"
Points = list[tuple[float, float]]


def loss_curves(run: Run) -> dict[str, Points]:
    """Return term -> (step, mean over neighbouring steps), and the validation's cross-entropy as it is."""
    curves: dict[str, Points] = {}
    for entry in read_records(Path(run["folder"]) / METRICS):
        for name, value in entry["values"].items() if entry["kind"] == "metrics" else ():
            known = isinstance(value, int | float) and math.isfinite(value)
            if known and (name.startswith("transfer/loss") or name == _VALIDATION):
                curves.setdefault(name.removeprefix("transfer/"), []).append((float(entry["step"]), value))
    if len(curves.get("loss_output", ())) == len(curves.get("loss", ())) and "loss_layer" not in curves:
        curves.pop("loss", None)  # one term: the sum says nothing more
    return {
        term.replace("/", " "): _thinned(points) for term, points in sorted(curves.items()) if len(points) > 1
    }


def _thinned(points: Points) -> Points:
    """Return at most `_BINS` points, each the mean of its neighbours."""
    width = math.ceil(len(points) / _BINS)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]
