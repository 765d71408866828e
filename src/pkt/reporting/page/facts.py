"""What a run folder and its artifacts say besides scores: settings, provenance, stages, what stages found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt.reporting.answers import artifact_folder
from pkt.reporting.figures import Drawing, attribution_figure, pairing_figure
from pkt.reporting.page.curves import entries
from pkt.reporting.runs import Arm, Run
from pkt.reporting.table import Table

_NONE = "–"


def manifest(run: Run, label: str) -> Mapping[str, Any]:
    """Return the manifest of what a stage left; empty where it is not there."""
    folder = artifact_folder(run, label)
    return read_json(folder / "manifest.json") if folder else {}


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object; empty where there is no such file."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def recipe_tables(arms: Sequence[Arm]) -> tuple[Table, ...]:
    """Return the settings in which arms differ, a column each, and those that all share."""
    settings = [arm.runs[0]["settings"] for arm in arms]
    keys = list(dict.fromkeys(key for own in settings for key in own))
    shown = {key: [_value(own.get(key, _NONE)) for own in settings] for key in keys}
    differ = {key: values for key, values in shown.items() if len(set(values)) > 1}
    shared = tuple((key, values[0]) for key, values in shown.items() if key not in differ)
    tables = []
    if differ:
        rows = tuple((key, *values) for key, values in differ.items())
        columns = ("setting", *(arm.label for arm in arms))
        tables.append(Table(title=f"settings that differ ({_NONE}: not read)", columns=columns, rows=rows))
    if shared:
        title = "settings that all arms share" if len(arms) > 1 else "settings"
        tables.append(Table(title=title, columns=("setting", "value"), rows=shared))
    return tuple(tables)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def commands(arms: Sequence[Arm]) -> Table:
    """Return a command that asks for each arm's first seed again."""
    rows = tuple((arm.label, str(first_run(arm).get("command", _NONE))) for arm in arms)
    return Table(title="the command of each arm's first seed", columns=("arm", "command"), rows=rows)


def environment(runs: Sequence[Run]) -> Table | None:
    """Return versions and platform from the manifests of what was computed; several where runs differ."""
    made = [
        manifest(run, stage["stage"]).get("meta", {}).get("provenance", {})
        for run in runs
        for stage in run.get("stages", [])
    ]
    facts: dict[str, dict[str, None]] = {}
    for provenance in made:
        for name, value in _flat(provenance):
            facts.setdefault(name, {})[value] = None
    started = sorted(facts.pop("started", {}))
    rows = [(name, ", ".join(sorted(values))) for name, values in facts.items()]
    if started:
        rows.append(("started", " to ".join(dict.fromkeys([started[0], started[-1]]))))
    if not rows:
        return None
    title = "what the artifacts were made with"
    return Table(title=title, columns=("", "version or name"), rows=tuple(rows))


def _flat(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in provenance.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif value is not None:
            yield name, str(value)


def stage_table(runs: Sequence[Run]) -> Table | None:
    """Return what was computed and what was reused: a line per stage of one run, or counts over several."""
    stages = [stage for run in runs for stage in run.get("stages", [])]
    if not stages or any("reused" not in stage or "seconds" not in stage for stage in stages):
        return None
    return _one_run(stages) if len(runs) == 1 else _many_runs(stages, len(runs))


def _one_run(stages: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (str(s["stage"]), "reused" if s["reused"] else "computed", f"{s['seconds']:,.1f}", str(s["key"]))
        for s in stages
    )
    title = "what this run computed, and what it took from the store"
    return Table(title=title, columns=("stage", "came about", "seconds", "key"), rows=rows)


def _many_runs(stages: Sequence[Mapping[str, Any]], count: int) -> Table:
    rows = []
    for label in dict.fromkeys(stage["stage"] for stage in stages):
        own = [stage for stage in stages if stage["stage"] == label]
        reused = sum(bool(stage["reused"]) for stage in own)
        seconds = f"{sum(stage['seconds'] for stage in own):,.1f}"
        keys = str(len({stage["key"] for stage in own}))
        rows.append((str(label), str(len(own) - reused), str(reused), keys, seconds))
    title = f"what {count} runs computed, and what they took from the store"
    return Table(
        title=title, columns=("stage", "computed", "reused", "artifacts", "seconds"), rows=tuple(rows)
    )


def stage_tables(run: Run) -> tuple[Table, ...]:
    """Return what the stages before `transfer` found, as the run's tracker kept it."""
    kept = [entry for entry in entries(run) if entry["kind"] == "table"]
    return tuple(
        Table(
            title=entry["name"].partition("/")[2],
            columns=tuple(map(str, entry["columns"])),
            rows=tuple(tuple(map(str, row)) for row in entry["rows"]),
        )
        for entry in kept
        if entry["name"].startswith(("extract/", "align/"))
    )


def layer_drawings(run: Run) -> tuple[Drawing, ...]:
    """Return attribution and pairing of a run, from what `extract` left; none where depths are not known."""
    folder = artifact_folder(run, "extract")
    found = read_json(folder / "extraction.json") if folder else {}
    pairs = [(int(pair["student"]), tuple(map(int, pair["teacher"]))) for pair in found.get("pairs", [])]
    scores = found.get("scores")
    drawings = []
    if scores:
        drawings.append(attribution_figure(scores, sorted({layer for _, own in pairs for layer in own})))
    teacher, student = _depths(run, found)
    within = all(own <= student and max(layers, default=1) <= teacher for own, layers in pairs)
    if pairs and teacher and student and within:
        drawings.append(pairing_figure(pairs, teacher, student))
    return tuple(drawings)


def _depths(run: Run, extraction: Mapping[str, Any]) -> tuple[int, int]:
    """Return the layers of teacher and student, 0 where nothing says how many."""
    named = run.get("layers", {})
    rows = extraction.get("scores") or extraction.get("similarity") or ()
    transfer = artifact_folder(run, "transfer")
    model = read_json(transfer / "model" / "config.json") if transfer else {}
    student = model.get("num_hidden_layers") or model.get("n_layer") or 0
    return int(named.get("teacher", len(rows))), int(named.get("student", student))


def first_run(arm: Arm) -> Run:
    """Return the run of the lowest seed: the one that pictures and examples are of."""
    return min(arm.runs, key=lambda run: int(run["seed"]))
