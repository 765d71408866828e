"""The answers behind a run's scores: from its folder back to the store, and to numbers that can be resampled.

    scores.json -> <store>/eval/<key>/scores.json -> records -> rows, values and weights per task

A run names the store relative to its own folder, so that outputs can be moved as a whole. Answers that are missing, or
do not add up to the score, are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pkt.evaluation.paired import Answers, Floats
from pkt.evaluation.results import Evaluation
from pkt.manifest import check_inside
from pkt.models.fingerprint import state
from pkt.reporting.gaps import estimate_of
from pkt.reporting.metrics import METRICS
from pkt.reporting.runs import Run
from pkt.run_files import SCORES

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One model's answers to the rows of one task; its score is the sum of values over the sum of weights.

    Attributes:
        rows: each row's id and target, which tell whether two models answered the same rows.
        value_N: what each row adds to the score's numerator: 1 for a right answer, or its bits.
        weight_N: what it adds to the denominator: 1, or its bytes.
    """

    rows: tuple[tuple[str, str], ...]
    value_N: Floats
    weight_N: Floats


def read_answers(run: Run, role: str) -> dict[str, Answered]:
    """Return task -> answers of a role of a run, for the tasks whose answers are graded and add up to the score."""
    records, scores = read_records(run, role), run["scores"][role]
    answers = {name: answered(records.get(score["task"], []), score) for name, score in scores.items()}
    return {name: own for name, own in answers.items() if own is not None}


def read_records(run: Run, role: str) -> dict[str, list[dict[str, Any]]]:
    """Return task -> one record per test row of a role of a run; empty where the store is not there."""
    file = artifact_file(run, f"eval {role}", SCORES)
    return _samples(file, *state(file)) if file else {}


@lru_cache(maxsize=8)  # the tables and the examples of a run's page ask for the same answers in turn
def _samples(file: Path, _size: int, _changed: int) -> dict[str, list[dict[str, Any]]]:
    return Evaluation.load(file).samples


def artifact_folder(run: Run, label: str) -> Path | None:
    """Return what a stage of a run left in the store; None where it is not there.

    Args:
        run: a run with its folder.
        label: name of the stage in the run's `stages`, such as ``transfer`` or ``eval teacher``.
    """
    keys = (stage["key"] for stage in run["stages"] if stage["stage"] == label)
    folders = (Path(run["folder"]).resolve() / run["store"] / label.partition(" ")[0] / key for key in keys)
    return next((folder for folder in folders if folder.is_dir()), None)


def artifact_file(run: Run, label: str, name: str) -> Path | None:
    """Return a file that a stage of a run left; None where it is not there, or not as it was written."""
    folder = artifact_folder(run, label)
    if folder is None or not (folder / name).is_file():
        return None
    try:
        check_inside(folder / name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is left out: %s; `pkt store verify` tells what else is damaged", folder / name, error)
        return None
    return folder / name


def answered(records: Sequence[Mapping[str, Any]], score: Mapping[str, Any]) -> Answered | None:
    """Return a score's answers from the records behind it; None where they are not graded or do not add up to it."""
    known = METRICS.get(score["metric"])
    value, weight = (known.value, known.weight) if known else ("", None)
    if records and all("metrics" in record for record in records):  # an lm-eval task with its own metrics
        records = [record | record["metrics"] for record in map(dict, records)]
        value, weight = score["metric"], None
    if not records or any(record.get(value) is None for record in records):
        return None
    values = np.array([float(record[value]) for record in records])
    weights = np.array([float(record[weight]) for record in records]) if weight else np.ones_like(values)
    if (
        not abs(values.sum() / weights.sum() - estimate_of(score).value) < 1e-6
    ):  # nor to one that is no number
        return None
    rows = tuple((str(record["id"]), str(record["target"])) for record in records)
    return Answered(rows=rows, value_N=values, weight_N=weights)


def stack(runs: Sequence[Mapping[str, Answered]], like: Mapping[str, Answered]) -> list[Answers] | None:
    """Return the answers of all runs of an arm, one entry per task of `like`.

    Args:
        runs: the arm's answers, per run.
        like: the tasks, with the rows that every run must have answered.

    Returns:
        None where a run has not answered just these rows.
    """
    if any(task not in run or run[task].rows != own.rows for run in runs for task, own in like.items()):
        return None
    return [
        Answers(
            value_KN=np.stack([run[task].value_N for run in runs]),
            weight_KN=np.stack([run[task].weight_N for run in runs]),
        )
        for task in like
    ]
