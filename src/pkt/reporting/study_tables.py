"""The tables of a study: what every arm scored and cost, the gap that it closed, and every arm against every other."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import PurePath

from pkt.reporting.cells import difference_cell, score_cell
from pkt.reporting.gaps import MEAN
from pkt.reporting.runs import Arm, Run
from pkt.reporting.study import Study
from pkt.table import Table

NONE = "–"
# column -> (key in a run's budget, unit); the mean over the seeds of an arm is shown
BUDGET = {
    "trained": ("trained_parameters", 1),
    "steps": ("optimiser_steps", 1),
    "rows": ("train_rows", 1),
    "student ktokens": ("student_forward_tokens", 1000),
    "teacher ktokens": ("teacher_forward_tokens", 1000),
    "seconds": ("seconds", 1),
    "peak MB": ("peak_mb", 1),
    "stored MB": ("stored_bytes", 2**20),
}


def study_table(study: Study) -> Table:
    """Return scores and budget in one table, as a sweep prints it."""
    scores, costs = scores_table(study), {arm.label: budget_cells(arm.runs) for arm in study.arms}
    blank = ("",) * len(BUDGET)
    rows = tuple((*row, *costs.get(row[0], blank)) for row in scores.rows)
    return Table(title=scores.title, columns=(*scores.columns, *BUDGET), rows=rows)


def scores_table(study: Study) -> Table:
    """Return the teacher, a row per arm by share of the gap closed, and the student."""
    against = _against(study)
    rows = []
    for arm in study.rows:
        mean = score_cell(study.score(arm, study.pooled), study.metric(study.tasks[0]))
        cells = [score_cell(study.score(arm, [task]), study.metric(task)) for task in study.tasks]
        own = ["", *[""] * len(against), ""]
        if arm.role == "transferred":
            own = [share_cell(study, arm, study.pooled), *(_difference_cell(study, arm) for _ in against)]
            own.append(str(len(arm.runs)))
        rows.append((arm.label, *cells, mean if study.averaged else NONE, *own))
    heads = [study.head(task) for task in study.tasks]
    columns = ("", *heads, MEAN, "gap closed", *against, "seeds")
    return Table(title=_title(study), columns=columns, rows=tuple(rows))


def runs_table(study: Study) -> Table | None:
    """Return every run's scores, with their errors over rows, and its folder; None where there is one run."""
    if len(study.runs) < 2:
        return None
    named = [str(run["folder"]) for arm in study.arms for run in arm.runs if "folder" in run]
    above = os.path.commonpath(named) if named else ""
    rows = []
    for arm in study.arms:
        for run in sorted(arm.runs, key=lambda run: int(run["seed"])):
            own = Arm(label=arm.label, runs=(run,))
            cells = [score_cell(study.score(own, [task]), study.metric(task)) for task in study.tasks]
            mean = score_cell(study.score(own, study.pooled), study.metric(study.tasks[0]))
            folder = os.path.relpath(run["folder"], above) if "folder" in run else NONE
            rows.append((arm.label, str(run["seed"]), *cells, mean if study.averaged else NONE, folder))
    heads = [study.head(task) for task in study.tasks]
    title = f"each run, ± standard error over rows; folders are below {PurePath(above).name or above}"
    return Table(title=title, columns=("", "seed", *heads, MEAN, "folder"), rows=tuple(rows))


def budget_table(study: Study) -> Table:
    """Return what each arm cost, without the arms and columns of which nothing is known."""
    costs = {arm.label: budget_cells(arm.runs) for arm in study.arms}
    costs = {label: cells for label, cells in costs.items() if set(cells) != {NONE}}
    filled = [place for place in range(len(BUDGET)) if {cells[place] for cells in costs.values()} - {NONE}]
    return Table(
        title="cost of an arm, mean over its seeds (evaluation left out)",
        columns=("", *(list(BUDGET)[place] for place in filled)),
        rows=tuple((label, *(cells[place] for place in filled)) for label, cells in costs.items()),
    )


def cost_values(arm: Arm, key: str) -> list[float]:
    """Return one entry of the budget of an arm's runs, of those that have it."""
    return _values(arm.runs, key)


def _values(runs: Sequence[Run], key: str) -> list[float]:
    known = (run.get("budget", {}).get(key) for run in runs)
    return [float(value) for value in known if isinstance(value, int | float)]


def share_cell(study: Study, arm: Arm, tasks: Sequence[str]) -> str:
    """Return an arm's share of the gap, nothing where none was measured."""
    share = study.share(arm, tasks)
    return share.cell if share else ""


def gap_table(study: Study) -> Table | None:
    """Return the share of the gap that each arm closed, task by task; None where there is none."""
    if not any(study.share(arm, study.pooled) for arm in study.arms):
        return None
    columns = study.columns
    rows = tuple(
        (arm.label, *(share_cell(study, arm, tasks) for tasks in columns.values())) for arm in study.arms
    )
    title = "share of teacher minus student, with its 95 % interval on the same rows; –: no gap to close"
    return Table(title=title, columns=("", *columns), rows=rows)


def pairs_table(study: Study) -> Table | None:
    """Return every arm against every other, or None where there are no two to compare."""
    arms = [arm for arm in study.arms if study.difference(arm, arm)]
    if len(arms) < 2:
        return None
    title = f"row minus column: {study.measure}; ≈ where the 95 % interval holds 0"
    if any(study.chance(arms[0], arm) is not None for arm in arms[1:]):
        title += "; p: McNemar's exact test over all rows (one seed each)"
    rows = tuple((row.label, *(_pair_cell(study, row, column) for column in arms)) for row in arms)
    return Table(title=title, columns=("", *(arm.label for arm in arms)), rows=rows)


def _against(study: Study) -> list[str]:
    """Return the head of the column of differences, if there are any."""
    if len(study.arms) < 2 or study.difference(study.reference) is None:
        return []
    which = f": {study.measure}" if len(study.compared) < len(study.tasks) else ""
    return [f"against {study.reference.label}{which}"]


def _title(study: Study) -> str:
    title = f"mean ± standard error over seeds and rows ({_rows(study)}); best first"
    if study.reference.label not in study.sampled:
        return (
            f"{title}; no differences: no graded answers of {study.reference.label} found"
            " (its store is elsewhere, its tasks keep none, or a score is no number)"
        )
    title += "; [95 % interval on the same rows], ≈ where it holds 0"
    if lacking := [task for task in study.compared if task not in study.answered]:
        title += f"; no differences: no graded answers to {', '.join(lacking)}"
    missing = [arm.label for arm in study.arms if arm.label not in study.sampled]
    return title + (f"; no answers to the same rows found of {', '.join(missing)}" if missing else "")


def _rows(study: Study) -> str:
    """Return how many rows each task was scored on."""
    counts = {task: study.row_count(task) for task in study.tasks}
    if len(set(counts.values())) > 1:
        return ", ".join(
            f"{task}: {'?' if count is None else f'{count:,}'}" for task, count in counts.items()
        )
    count = next(iter(counts.values()))
    return (
        "number of rows not kept" if count is None else f"{count:,} row{'' if count == 1 else 's'} per task"
    )


def _difference_cell(study: Study, arm: Arm) -> str:
    if arm.label == study.reference.label:
        return ""
    difference = study.difference(arm)
    return difference_cell(difference, points=study.points) if difference else NONE


def _pair_cell(study: Study, row: Arm, column: Arm) -> str:
    difference = study.difference(row, column)
    if row.label == column.label or difference is None:
        return ""
    chance = study.chance(row, column)
    p_value = "" if chance is None else " (p < 0.001)" if chance < 0.001 else f" (p {chance:.3f})"
    return difference_cell(difference, points=study.points, ends=False) + p_value


def budget_cells(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return what runs cost, a cell per entry of `BUDGET`, mean over them."""
    costs = [(_values(runs, key), unit) for key, unit in BUDGET.values()]
    return tuple(f"{statistics.fmean(values) / unit:,.0f}" if values else NONE for values, unit in costs)
