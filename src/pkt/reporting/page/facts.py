"""What a run's folder and artifacts hold besides scores: settings, versions, stages, and what the stages chose."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt.reporting.answers import artifact_file
from pkt.reporting.figures import Drawing, attribution_figure, pairing_figure
from pkt.reporting.overrides import overrides, written_out
from pkt.reporting.page.report import Snippet
from pkt.reporting.runs import Arm, Run
from pkt.run_files import METRICS
from pkt.table import Table
from pkt.tracking.jsonl import read_records

_NONE = "–"


def _read_json(run: Run, label: str, name: str) -> dict[str, Any]:
    """Return a JSON object from what a stage of a run left; empty where it is not there."""
    file = artifact_file(run, label, name)
    content = json.loads(file.read_text(encoding="utf-8")) if file else {}
    return content if isinstance(content, dict) else {}


def recipe_tables(arms: Sequence[Arm]) -> tuple[Table, ...]:
    """Return the settings in which arms differ, a column each, and those that all share, as overrides."""
    settings = [overrides(arm.runs[0]) for arm in arms]
    keys = list(dict.fromkeys(key for own in settings for key in own))
    shown = {key: [own.get(key, _NONE) for own in settings] for key in keys}
    differ = {key: values for key, values in shown.items() if len(set(values)) > 1}
    shared = tuple((key, values[0]) for key, values in shown.items() if key not in differ)
    tables = []
    if differ:
        rows = tuple((key, *values) for key, values in differ.items())
        columns = ("setting", *(arm.label for arm in arms))
        tables.append(
            Table(
                title=f"settings that differ ({_NONE}: not read, or at its default)",
                columns=columns,
                rows=rows,
            )
        )
    if shared:
        title = "settings that all arms share" if len(arms) > 1 else "settings"
        tables.append(Table(title=title, columns=("setting", "value"), rows=shared))
    return tuple(tables)


def commands(arms: Sequence[Arm]) -> tuple[Snippet, ...]:
    """Return the command of each arm's lowest seed, as it was given and with every setting in it."""
    found = []
    for arm in arms:
        if command := arm.first.get("command"):
            found.append(
                Snippet(title=f"command of {arm.label}, seed {arm.first['seed']}", text=str(command))
            )
        if whole := written_out(arm.first):
            found.append(Snippet(title=f"command of {arm.label} with every setting written out", text=whole))
    return tuple(found)


def environment(runs: Sequence[Run]) -> Table | None:
    """Return versions and platform from the manifests of the artifacts, all of them where runs differ."""
    labels = [(run, stage["stage"]) for run in runs for stage in run["stages"]]
    facts: dict[str, set[str]] = {}
    for run, label in labels:
        meta = _read_json(run, label, "manifest.json").get("meta")
        for name, value in _flat(meta.get("provenance") if isinstance(meta, dict) else None):
            facts.setdefault(name, set()).add(value)
    started = sorted(facts.pop("started", ()))
    rows = [(name, ", ".join(sorted(values))) for name, values in facts.items()]
    if started:
        rows.append(("started", " to ".join(dict.fromkeys([started[0], started[-1]]))))
    title = "what the artifacts were made with"
    return Table(title=title, columns=("", "version or name"), rows=tuple(rows)) if rows else None


def _flat(provenance: Any) -> Iterator[tuple[str, str]]:
    for name, value in provenance.items() if isinstance(provenance, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif value is not None:
            yield name, str(value)


def stage_table(runs: Sequence[Run]) -> Table | None:
    """Return what was computed and what was reused: a line per stage of one run, or counts over several."""
    stages = [stage for run in runs for stage in run["stages"]]
    if not stages:
        return None
    if len(runs) == 1:
        title = "what this run computed, and what it took from the store"
        columns: tuple[str, ...] = ("stage", "came about", "seconds", "key")
        how = {True: "reused", False: "computed"}
        rows = [
            (str(s["stage"]), how[bool(s["reused"])], f"{s['seconds']:,.1f}", str(s["key"])) for s in stages
        ]
        return Table(title=title, columns=columns, rows=tuple(rows))
    title = f"what {len(runs)} runs computed, and what they took from the store"
    columns = ("stage", "computed", "reused", "artifacts", "seconds")
    labels = dict.fromkeys(stage["stage"] for stage in stages)
    counts = (_counts(str(label), [stage for stage in stages if stage["stage"] == label]) for label in labels)
    return Table(title=title, columns=columns, rows=tuple(counts))


def _counts(label: str, stages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    reused = sum(bool(stage["reused"]) for stage in stages)
    seconds = f"{sum(stage['seconds'] for stage in stages):,.1f}"
    return label, str(len(stages) - reused), str(reused), str(len({s["key"] for s in stages})), seconds


def stage_tables(run: Run) -> list[Table]:
    """Return the tables of the stages before `transfer`, as the run's tracker kept them."""
    records = read_records(Path(run["folder"]) / METRICS)
    named = [(one["name"].partition("/"), one) for one in records if one["kind"] == "table"]
    return [Table.from_data(title, e) for (stage, _, title), e in named if stage in ("extract", "align")]


def layer_drawings(run: Run) -> list[Drawing]:
    """Return attribution and pairing of a run, from what `extract` left."""
    extraction = _read_json(run, "extract", "extraction.json")
    pairs = [(int(p["student"]), tuple(map(int, p["teacher"]))) for p in extraction.get("pairs", [])]
    drawings = []
    if scores := extraction.get("scores"):
        drawings.append(attribution_figure(scores, sorted({layer for _, own in pairs for layer in own})))
    if pairs and "layers" in run:
        drawings.append(pairing_figure(pairs, run["layers"]["teacher"], run["layers"]["student"]))
    return drawings
