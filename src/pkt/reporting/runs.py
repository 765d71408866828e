"""Runs and arms: the folders that `pkt run` and `pkt eval` leave, grouped by what they have in common.

folders of scores.json -> runs -> arms (the same settings, different seeds)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.errors import RequestError

Run = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The runs of one setting, one per seed."""

    label: str
    runs: tuple[Run, ...]


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
    runs = [_named_by_split(run) for run in runs if "transferred" in run.get("scores", {})]
    if not runs:
        raise RequestError(f"no scores.json under {', '.join(map(str, folders))}: run `pkt run` first.")
    return runs


def _read(file: Path) -> Run:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{file} cannot be read ({error}): leave its folder out, or run it again."
        ) from error
    return {**found, "folder": str(file.parent)} if isinstance(found, dict) else {}


def _named_by_split(run: Run) -> Run:
    split = run.get("split", "test")
    return (
        run
        if split == "test"
        else run | {"benchmark": f"{run['benchmark']} ({split.upper()} rows, not test)"}
    )


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
    """Return the method with the settings in which this arm leaves what most of the method's arms have."""
    siblings = _distinct(other["settings"] for other in runs if other["method"] == run["method"])
    shown = [
        key for key in sorted({key for other in siblings for key in other}) if _tells(key, run, siblings)
    ]
    own = run["settings"]
    if not all_settings:
        # a strategy's own settings come and go with it: its name says enough
        swapped = tuple(key.removesuffix("strategy") for key in shown if key.endswith(".strategy"))
        shown = [key for key in shown if key.endswith(".strategy") or not key.startswith(swapped)]
        # what another choice took away says less than that choice; what is told twice is told once
        gone = [key for key in shown if key.endswith(".strategy")] or shown
        shown = [key for key in shown if own.get(key) is not None] or gone
        shown = [key for key in shown if not any(_repeats(key, other, own) for other in shown)]
    extra = [f"{key.removesuffix('.strategy')} {_value(own.get(key))}" for key in shown]
    return str(run["method"]) + (f" ({', '.join(extra)})" if extra else "")


def _repeats(key: str, other: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting says what a longer name says too (``positions`` and ``objective.terms.layer.positions``)."""
    return other.endswith(f".{key}") and settings.get(other) == settings.get(key)


def _distinct(settings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each setting once: seeds of one arm do not outvote other arms."""
    return list({json.dumps(each, sort_keys=True): each for each in settings}.values())


def _tells(key: str, run: Run, siblings: Sequence[dict[str, Any]]) -> bool:
    """Whether a run's value of a setting differs from the one that more than half of the arms share."""
    values = [json.dumps(other.get(key)) for other in siblings]
    return 2 * values.count(json.dumps(run["settings"].get(key))) <= len(values)


def _value(value: Any) -> str:
    return value.lower() if isinstance(value, str) else json.dumps(value)
