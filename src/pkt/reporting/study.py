"""Many runs in one table: seeds averaged, methods side by side.

A run is a folder with `scores.json` (written by `pkt run` and `pkt eval`). Runs with the same method, map,
mapping, objective and benchmark are seeds of one arm.

Standard errors cover both the draw of seeds and that of test rows (`evaluation.statistics.over_seeds`).
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.errors import RequestError
from pkt.evaluation.statistics import Estimate, mean_estimate, over_seeds
from pkt.reporting.table import Table, share_cell

ARM_KEYS = ("method", "semantics", "mapping", "output")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The runs of one setting."""

    label: str
    runs: tuple[dict[str, Any], ...]


def load_runs(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Read every `scores.json` under the folders.

    Raises:
        RequestError: there is none.
    """
    folders = list(folders)
    files = sorted({file for folder in folders for file in folder.rglob("scores.json") if file.is_file()})
    if not files:
        raise RequestError(f"no scores.json under {', '.join(map(str, folders))}: run `pkt run` first.")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def arms(runs: Sequence[dict[str, Any]]) -> list[Arm]:
    """Group runs into arms; the label names what differs between the runs of one method."""
    settings = [{key: run["settings"].get(key) for key in ARM_KEYS} for run in runs]
    grouped: dict[str, dict[int, dict[str, Any]]] = {}
    for run, setting in zip(runs, settings, strict=True):
        siblings = [other for other in settings if other["method"] == setting["method"]]
        varying = [key for key in ARM_KEYS[1:] if len({str(other[key]) for other in siblings}) > 1]
        extra = [f"{key} {setting[key]}" for key in varying]
        label = str(setting["method"]) + (f" ({', '.join(extra)})" if extra else "")
        grouped.setdefault(label, {})[run["seed"]] = run  # a seed that was run twice counts once
    return [Arm(label=label, runs=tuple(by_seed.values())) for label, by_seed in grouped.items()]


def study_table(runs: Sequence[dict[str, Any]]) -> Table:
    """Return the table: untouched student, one row per arm by share of the gap closed, teacher."""
    tasks = list(next(iter(runs[0]["scores"].values())))
    ranked = sorted(arms(runs), key=lambda arm: _gap(arm, tasks).value)
    rows = [_fixed_row("student", runs[0]["scores"]["student"], tasks)]
    rows += [_arm_row(arm, tasks) for arm in ranked]
    rows.append(_fixed_row("teacher", runs[0]["scores"]["teacher"], tasks))
    columns = ("", *tasks, "mean", "gap closed", "seeds", "trained", "steps", "seconds")
    return Table(title="mean ± standard error", columns=columns, rows=tuple(rows))


def _arm_row(arm: Arm, tasks: Sequence[str]) -> tuple[str, ...]:
    scores = {
        task: over_seeds([_estimate(run["scores"]["transferred"][task]) for run in arm.runs])
        for task in tasks
    }
    mean = over_seeds(
        [mean_estimate([_estimate(run["scores"]["transferred"][task]) for task in tasks]) for run in arm.runs]
    )
    budget = arm.runs[0]["budget"]
    seconds = statistics.fmean(float(run["budget"].get("seconds", math.nan)) for run in arm.runs)
    return (
        arm.label,
        *(_cell(scores[task]) for task in tasks),
        _cell(mean),
        share_cell(_gap(arm, tasks)),
        str(len(arm.runs)),
        f"{int(budget.get('trained_parameters', 0)):,}",
        f"{int(budget.get('optimiser_steps', 0)):,}",
        f"{seconds:.0f}",
    )


def _gap(arm: Arm, tasks: Sequence[str]) -> Estimate:
    return over_seeds(
        [mean_estimate([_estimate(run["gap_closed"][task]) for task in tasks]) for run in arm.runs]
    )


def _fixed_row(label: str, scores: dict[str, Any], tasks: Sequence[str]) -> tuple[str, ...]:
    estimates = [_estimate(scores[task]) for task in tasks]
    return (label, *(_cell(e) for e in estimates), _cell(mean_estimate(estimates)), "", "", "", "", "")


def _estimate(data: dict[str, Any]) -> Estimate:
    return Estimate(value=data["value"], stderr=data["stderr"])


def _cell(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ± {100 * estimate.stderr:.1f}"
