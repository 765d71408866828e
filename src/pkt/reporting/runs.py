"""Read the folders that `pkt run` and `pkt eval` leave, and group runs of equal settings into arms.

folders of scores.json -> runs -> arms (the same settings, different seeds)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.durable import read_json
from pkt.errors import RequestError

Run = dict[str, Any]
STRATEGY = "_target_"  # a setting that ends in this names the class of a strategy


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runs that differ in their seed alone. The teacher and the untouched student are arms too, of one run each.

    Attributes:
        label: its name in tables.
        runs: in the order in which they were read.
        role: the model whose scores the arm stands for.
    """

    label: str
    runs: tuple[Run, ...]
    role: str = "transferred"

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.runs[0]["method"])

    @property
    def first(self) -> Run:
        """The run of the lowest seed: the one that pictures and examples are of."""
        return min(self.runs, key=lambda run: int(run["seed"]))


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Read every `scores.json` under the folders that holds a transferred student's scores.

    Returns:
        What the files hold, and under ``folder`` where each one lies. Scores of other rows than the test rows are a
        benchmark of their own, whose name says so.

    Raises:
        RequestError: there is none, or one cannot be read.
    """
    folders = list(folders)
    files = sorted({file for folder in folders for file in folder.rglob("scores.json") if file.is_file()})
    # a store keeps files of this name too, with the answers behind the scores
    runs = [_read(file) for file in files if not (file.parent / "manifest.json").exists()]
    runs = [_named_by_split(run) for run in runs if "transferred" in run["scores"]]
    if not runs:
        raise RequestError(f"no scores.json under {', '.join(map(str, folders))}: run `pkt run` first.")
    return runs


def _read(file: Path) -> Run:
    try:
        return {**read_json(file), "folder": str(file.parent)}
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{file} cannot be read ({error}): leave its folder out, or run it again."
        ) from error


def _named_by_split(run: Run) -> Run:
    if run["split"] == "test":
        return run
    return run | {"benchmark": f"{run['benchmark']} ({run['split'].upper()} rows, not test)"}


def arms(runs: Sequence[Run]) -> list[Arm]:
    """Group runs into arms.

    A label names what sets its arm apart from most arms of the same method; no two labels are equal.
    """
    grouped: dict[str, dict[int, Run]] = {}
    for run in runs:
        identity = json.dumps(run["settings"], sort_keys=True)
        grouped.setdefault(identity, {})[run["seed"]] = run  # a seed that was run twice counts once
    groups = [tuple(by_seed.values()) for by_seed in grouped.values()]
    labels = [_label(group[0], runs) for group in groups]
    shared = {label for label in labels if labels.count(label) > 1}
    return [
        Arm(label=_label(group[0], runs, all_settings=True) if label in shared else label, runs=group)
        for group, label in zip(groups, labels, strict=True)
    ]


def _label(run: Run, runs: Sequence[Run], *, all_settings: bool = False) -> str:
    """Return the method's name and the settings in which this arm differs from most arms of that method."""
    own = run["settings"]
    siblings = [other["settings"] for other in runs if other["method"] == run["method"]]
    # each setting once: seeds of one arm do not outvote other arms
    siblings = list({json.dumps(each, sort_keys=True): each for each in siblings}.values())
    shown = [key for key in sorted({key for each in siblings for key in each}) if _tells(key, own, siblings)]
    if not all_settings:
        # where a strategy was exchanged, its name is enough: its own settings come with it
        swapped = tuple(key.removesuffix(STRATEGY) for key in shown if key.endswith(f".{STRATEGY}"))
        shown = [key for key in shown if key.endswith(f".{STRATEGY}") or not key.startswith(swapped)]
        # settings that are gone because of another choice say less than that choice
        shown = [key for key in shown if own.get(key) is not None] or shown
    extra = [f"{key.removesuffix(f'.{STRATEGY}')} {_value(key, own.get(key))}" for key in shown]
    return str(run["method"]) + (f" ({', '.join(extra)})" if extra else "")


def _tells(key: str, own: Mapping[str, Any], siblings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an arm's value of a setting differs from the one that more than half of the arms share."""
    values = [json.dumps(other.get(key)) for other in siblings]
    return 2 * values.count(json.dumps(own.get(key))) <= len(values)


def _value(key: str, value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return value.rpartition(".")[2].lower() if key.endswith(f".{STRATEGY}") else value
