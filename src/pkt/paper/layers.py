"""Figures 2, 4 and 5 from what `pkt analyze` has left: its data averaged over seeds, drawn, and told in a table.

folders -> analysis.json -> one set of matrices per method -> drawings, table of similarities at equal depth
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pkt.evaluation.statistics import Estimate, over_seeds
from pkt.mapping import depth_layer
from pkt.reporting.figures import Drawing
from pkt.reporting.layer_figures import FIGURES
from pkt.reporting.table import Table

# which matrices a figure shows: (rows, columns)
PAIRS: Mapping[str, Sequence[tuple[str, str]]] = {
    "figure4": (("student", "student"), ("student", "transferred"), ("transferred", "transferred")),
    "figure5": (("teacher", "student"), ("teacher", "transferred")),
}
WORDS = {"teacher": "teacher", "student": "student before", "transferred": "student after"}

# tables, drawings, and the numbers behind them at full precision
Found = tuple[tuple[Table, ...], tuple[Drawing, ...], dict[str, Any]]


def read(folder: Path, part: str) -> dict[str, Any]:
    """Return what `pkt analyze` found of one part: ``tables`` and ``data``."""
    (file,) = folder.rglob("analysis.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["parts"][part]
    return found


def resolution(target: str, folders: Sequence[Path]) -> Found:
    """Return the tables, the drawing and the numbers of Figure 2.

    Args:
        target: what the drawing's file is called.
        folders: of the one job.
    """
    part = read(folders[0], "resolution")
    tables = tuple(
        Table(
            title=str(table["title"]),
            columns=tuple(map(str, table["columns"])),
            rows=tuple(tuple(map(str, row)) for row in table["rows"]),
        )
        for table in part["tables"]
    )
    return tables, _named(FIGURES["resolution"](part["data"]), target, ""), part["data"]


def similarity(target: str, folders: Sequence[Path]) -> Found:
    """Return the table, the drawings and the numbers (mean of the seeds) of Figure 4 or 5.

    Args:
        target: ``figure4`` or ``figure5``.
        folders: of the jobs, named ``cka_<method>_seed-<seed>``.
    """
    by_method: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        method = folder.name.removeprefix("cka_").rpartition("_seed-")[0]
        by_method.setdefault(method, []).append(read(folder, "cka")["data"])
    drawings: list[Drawing] = []
    rows, means = [], {}
    for method, seeds in by_method.items():
        shown = [_averaged(seeds, pair) for pair in PAIRS[target]]
        data = {**seeds[0], "matrices": shown}
        means[method] = data
        drawings += _named(
            FIGURES["cka"](data), f"{target}_{method}", f"{method}, mean of {len(seeds)} seeds: "
        )
        rows += [(method, *_row(seeds, pair)) for pair in PAIRS[target]]
    title = (
        "linear CKA at equal relative depth, mean over the layers ± standard error over seeds; and its range"
    )
    columns = ("", "layers of", "with layers of", "mean", "lowest layer", "highest layer")
    return (Table(title=title, columns=columns, rows=tuple(rows)),), tuple(drawings), means


def _matrix(data: Mapping[str, Any], pair: tuple[str, str]) -> Mapping[str, Any]:
    matches = [entry for entry in data["matrices"] if (entry["rows"], entry["columns"]) == pair]
    assert len(matches) == 1, pair
    found: Mapping[str, Any] = matches[0]
    return found


def _averaged(seeds: Sequence[Mapping[str, Any]], pair: tuple[str, str]) -> dict[str, Any]:
    found = [_matrix(data, pair) for data in seeds]
    values = np.mean([entry["values"] for entry in found], axis=0).tolist()
    same_depth = float(np.mean([entry["same_depth"] for entry in found]))
    return {**found[0], "values": values, "same_depth": same_depth}


def _row(seeds: Sequence[Mapping[str, Any]], pair: tuple[str, str]) -> tuple[str, ...]:
    found = [_matrix(data, pair) for data in seeds]
    mean = over_seeds([Estimate(value=entry["same_depth"], stderr=0.0) for entry in found])
    per_layer = _at_equal_depth(np.mean([entry["values"] for entry in found], axis=0))
    return (
        WORDS[pair[0]],
        WORDS[pair[1]],
        f"{mean.value:.3f} ± {mean.stderr:.3f}",
        f"{min(per_layer):.3f}",
        f"{max(per_layer):.3f}",
    )


def _at_equal_depth(values: np.ndarray[Any, Any]) -> list[float]:
    """Return, per layer of the columns' model, the entry of the row at the same relative depth."""
    first, second = values.shape
    return [float(values[depth_layer(k, first, second) - 1, k - 1]) for k in range(1, second + 1)]


def _named(drawings: Sequence[Drawing], name: str, heading: str) -> tuple[Drawing, ...]:
    return tuple(
        replace(
            drawing,
            name=name if index == 0 else f"{name}_{index + 1}",
            title=heading + drawing.title,
            alt=heading + drawing.alt,
        )
        for index, drawing in enumerate(drawings)
    )
