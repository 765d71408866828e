"""Figures 2, 4 and 5 from what `pkt analyze` has left: its data averaged over seeds, as drawings and a table.

folders -> analysis.json -> one set of matrices per method -> drawings, table of similarities at equal depth
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pkt.errors import PktError
from pkt.evaluation.statistics import Estimate, over_seeds
from pkt.mapping import depth_layer
from pkt.reporting.cells import score_cell
from pkt.reporting.figures import Drawing
from pkt.reporting.layer_figures import FIGURES
from pkt.reporting.page.analyses import Part, read_analyses, tables_of
from pkt.table import Table

# which matrices a figure shows: (rows, columns)
PAIRS: Mapping[str, Sequence[tuple[str, str]]] = {
    "figure4": (("student", "student"), ("student", "transferred"), ("transferred", "transferred")),
    "figure5": (("teacher", "student"), ("teacher", "transferred")),
}
WORDS = {"teacher": "teacher", "student": "student before", "transferred": "student after"}

# tables, drawings, and the numbers behind them at full precision
Shown = tuple[tuple[Table, ...], tuple[Drawing, ...], Mapping[str, Any]]


def resolution(target: str, folders: Sequence[Path]) -> Shown:
    """Return the tables, the drawing and the numbers of Figure 2.

    Args:
        target: what the drawing's file is called.
        folders: of the one job.
    """
    part = _part(folders[0], "resolution")
    return tables_of(part), _named(FIGURES["resolution"](part["data"]), target, ""), part["data"]


def _part(folder: Path, name: str) -> Part:
    found = [analysis.parts[name] for analysis in read_analyses([folder]) if name in analysis.parts]
    if not found:
        raise PktError(
            f"{folder} holds no analysis '{name}': its job did not end; the same command goes on from here."
        )
    return found[-1]  # the newest


def similarity(target: str, folders: Sequence[Path]) -> Shown:
    """Return the table, the drawings and the numbers (mean of the seeds) of Figure 4 or 5.

    Args:
        target: ``figure4`` or ``figure5``.
        folders: of the jobs, named ``cka_<method>_seed-<seed>``.
    """
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for folder in folders:
        method = folder.name.removeprefix("cka_").rpartition("_seed-")[0]
        by_method.setdefault(method, []).append(_part(folder, "cka")["data"])
    drawings: list[Drawing] = []
    rows, means = [], {}
    for method, seeds in by_method.items():
        matrices = {pair: [_matrix(data, pair) for data in seeds] for pair in PAIRS[target]}
        means[method] = {**seeds[0], "matrices": [_averaged(same) for same in matrices.values()]}
        heading = f"{method}, mean of {len(seeds)} seeds: "
        drawings += _named(FIGURES["cka"](means[method]), f"{target}_{method}", heading)
        rows += [(method, *(WORDS[role] for role in pair), *_cells(same)) for pair, same in matrices.items()]
    title = (
        "linear CKA at equal relative depth, mean over the layers ± standard error over seeds; and its range"
    )
    columns = ("", "layers of", "with layers of", "mean", "lowest layer", "highest layer")
    return (Table(title=title, columns=columns, rows=tuple(rows)),), tuple(drawings), means


def _matrix(data: Mapping[str, Any], pair: tuple[str, str]) -> Mapping[str, Any]:
    (matrix,) = (entry for entry in data["matrices"] if (entry["rows"], entry["columns"]) == pair)
    return dict(matrix)


def _averaged(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = np.mean([matrix["values"] for matrix in seeds], axis=0).tolist()
    same_depth = float(np.mean([matrix["same_depth"] for matrix in seeds]))
    return {**seeds[0], "values": values, "same_depth": same_depth}


def _cells(seeds: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the mean at equal depth over seeds, and the lowest and the highest layer's."""
    mean = over_seeds([Estimate(value=matrix["same_depth"], stderr=0.0) for matrix in seeds])
    values = np.mean([matrix["values"] for matrix in seeds], axis=0)
    first, second = values.shape
    per_layer = [float(values[depth_layer(k, first, second) - 1, k - 1]) for k in range(1, second + 1)]
    return score_cell(mean, "cka"), f"{np.min(per_layer):.3f}", f"{np.max(per_layer):.3f}"  # NaN stays NaN


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
