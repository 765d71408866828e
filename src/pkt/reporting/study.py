"""Many runs in one table: seeds averaged, methods side by side, with what each cost.

    folders of scores.json -> runs -> arms (the same settings, different seeds) -> one table per model and benchmark

A run is a folder with `scores.json` (written by `pkt run` and `pkt eval`).
Standard errors cover both the draw of seeds and that of test rows (`evaluation.statistics.over_seeds`).
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.errors import RequestError
from pkt.evaluation.statistics import Estimate, mean_estimate, over_seeds
from pkt.reporting.table import SHARES, Table, share_cell

Run = dict[str, Any]
# column -> (key in a run's budget, unit); the mean over the seeds of an arm is shown
BUDGET = {
    "trained": ("trained_parameters", 1),
    "steps": ("optimiser_steps", 1),
    "rows": ("train_rows", 1),
    "student ktokens": ("student_forward_tokens", 1000),
    "teacher ktokens": ("teacher_forward_tokens", 1000),
    "seconds": ("seconds", 1),
    "peak MB": ("peak_mb", 1),
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The runs of one setting, one per seed."""

    label: str
    runs: tuple[Run, ...]


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Read every `scores.json` under the folders that holds a transferred student's scores.

    Raises:
        RequestError: there is none.
    """
    folders = list(folders)
    files = sorted({file for folder in folders for file in folder.rglob("scores.json") if file.is_file()})
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    runs = [run for run in runs if "transferred" in run.get("scores", {})]
    if not runs:
        raise RequestError(f"no scores.json under {', '.join(map(str, folders))}: run `pkt run` first.")
    return runs


def arms(runs: Sequence[Run]) -> list[Arm]:
    """Group runs into arms; the label names what differs between the runs of one method."""
    grouped: dict[str, dict[int, Run]] = {}
    labels: dict[str, str] = {}
    for run in runs:
        siblings = [other["settings"] for other in runs if other["method"] == run["method"]]
        identity = json.dumps(run["settings"], sort_keys=True)
        grouped.setdefault(identity, {})[run["seed"]] = run  # a seed that was run twice counts once
        labels[identity] = _label(run, siblings)
    return [Arm(label=labels[key], runs=tuple(by_seed.values())) for key, by_seed in grouped.items()]


def _label(run: Run, siblings: Sequence[Mapping[str, Any]]) -> str:
    keys = sorted({key for other in siblings for key in other})
    varying = [key for key in keys if len({json.dumps(other.get(key)) for other in siblings}) > 1]
    # a strategy's own settings come and go with it: its name says enough
    swapped = tuple(key.removesuffix("strategy") for key in varying if key.endswith(".strategy"))
    shown = [
        key
        for key in varying
        if key.endswith(".strategy") or not (key.startswith(swapped) if swapped else False)
    ]
    extra = [f"{key.removesuffix('.strategy')} {_value(run['settings'].get(key))}" for key in shown]
    return str(run["method"]) + (f" ({', '.join(extra)})" if extra else "")


def _value(value: Any) -> str:
    return value.lower() if isinstance(value, str) else json.dumps(value)


def study_tables(runs: Sequence[Run]) -> list[Table]:
    """Return one table per model pair and benchmark."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["model"], run["benchmark"]), []).append(run)
    return [study_table(group, f"{model}, {benchmark}: ") for (model, benchmark), group in groups.items()]


def study_table(runs: Sequence[Run], heading: str = "") -> Table:
    """Return the table of one pair and benchmark: teacher, one row per arm by share of the gap closed, student."""
    tasks = list(next(iter(runs[0]["scores"].values())))
    known = [arm for arm in arms(runs) if arm.runs[0].get("gap_closed")]
    ranked = sorted(known, key=lambda arm: -_sortable(_gap(arm, tasks).value))
    ranked += [arm for arm in arms(runs) if not arm.runs[0].get("gap_closed")]
    rows = [_fixed_row("teacher", runs[0]["scores"].get("teacher"), tasks)]
    rows += [_arm_row(arm, tasks) for arm in ranked]
    rows.append(_fixed_row("student", runs[0]["scores"].get("student"), tasks))
    heads = [f"{task}{_unit(runs[0], task)}" for task in tasks]
    return Table(
        title=f"{heading}mean ± standard error over seeds and test rows; best first",
        columns=("", *heads, "mean", "gap closed", "seeds", *BUDGET),
        rows=tuple(row for row in rows if row),
    )


def _sortable(share: float) -> float:
    return -math.inf if math.isnan(share) else share


def _unit(run: Run, task: str) -> str:
    score = next(iter(run["scores"].values()))[task]
    return "" if score["metric"] in SHARES or score.get("higher_is_better", True) else " (↓)"


def _arm_row(arm: Arm, tasks: Sequence[str]) -> tuple[str, ...]:
    first = arm.runs[0]["scores"]["transferred"]
    means = {
        task: over_seeds([_estimate(run["scores"]["transferred"][task]) for run in arm.runs])
        for task in tasks
    }
    overall = over_seeds(
        [mean_estimate([_estimate(run["scores"]["transferred"][task]) for task in tasks]) for run in arm.runs]
    )
    shares = all(first[task]["metric"] in SHARES for task in tasks)
    gap = share_cell(_gap(arm, tasks)) if arm.runs[0].get("gap_closed") else ""
    return (
        arm.label,
        *(_cell(means[task], first[task]["metric"]) for task in tasks),
        _cell(overall, first[tasks[0]]["metric"]) if shares else "–",
        gap,
        str(len(arm.runs)),
        *(_budget_cell(arm, key, unit) for key, unit in BUDGET.values()),
    )


def _budget_cell(arm: Arm, key: str, unit: int) -> str:
    values = [float(run["budget"][key]) for run in arm.runs if key in run.get("budget", {})]
    return f"{statistics.fmean(values) / unit:,.0f}" if values else "–"


def _gap(arm: Arm, tasks: Sequence[str]) -> Estimate:
    return over_seeds(
        [mean_estimate([_estimate(run["gap_closed"][task]) for task in tasks]) for run in arm.runs]
    )


def _fixed_row(label: str, scores: Mapping[str, Any] | None, tasks: Sequence[str]) -> tuple[str, ...]:
    if scores is None:
        return ()
    estimates = [_estimate(scores[task]) for task in tasks]
    shares = all(scores[task]["metric"] in SHARES for task in tasks)
    mean = _cell(mean_estimate(estimates), scores[tasks[0]]["metric"]) if shares else "–"
    cells = [_cell(e, scores[task]["metric"]) for e, task in zip(estimates, tasks, strict=True)]
    return (label, *cells, mean, *[""] * (2 + len(BUDGET)))


def _estimate(data: Mapping[str, Any]) -> Estimate:
    return Estimate(value=data["value"], stderr=data["stderr"])


def _cell(estimate: Estimate, metric: str) -> str:
    """Return per cent for shares of right answers, the plain number otherwise."""
    if metric in SHARES:
        return f"{100 * estimate.value:.1f} ± {100 * estimate.stderr:.1f}"
    return f"{estimate.value:.3f} ± {estimate.stderr:.3f}"
