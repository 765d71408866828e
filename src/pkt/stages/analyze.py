"""`pkt analyze`: what is inside both models, one artifact per part.

part -> key (its settings, the models and rows that it reads) -> store: data.json
     -> tables on the console and in the tracker, PNG files, `analysis.json` in the run folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt import console
from pkt.errors import PktError, RequestError, nearest
from pkt.manifest import write_atomically
from pkt.reporting.figures import save
from pkt.reporting.layer_figures import FIGURES
from pkt.reporting.layer_tables import SHOWN, TABLES
from pkt.semantics import Semantics
from pkt.stages.analyze_parts import PARTS
from pkt.stages.analyze_subject import Subject
from pkt.stages.session import Session
from pkt.store import Artifact, content_key
from pkt.table import Table

STAGE = "analyze"
VERSION = 3  # of the numbers: another one makes older artifacts count as missing
WIDEST = 14  # columns of a table that the console shows; wider ones are in analysis.json and the figures
REPORT = "analysis.json"


def analyze(session: Session, maps: Mapping[str, Semantics]) -> None:
    """Make sure that every part asked for is in the store, and show it.

    Args:
        session: the request.
        maps: every option of the group `semantics`, by name.

    Raises:
        RequestError: a part that needs a model or rows that the request leaves out, or an unknown map.
    """
    config = session.bench.config.analyze
    parts = list(dict.fromkeys(config.parts))
    subject = Subject(session=session, maps=_chosen(maps, session))
    for part in parts:
        PARTS[part].check(subject)
    try:
        found = {part: _data(_obtained(subject, part)) for part in parts}
    finally:
        subject.release()
    _show(session, found)


def _chosen(maps: Mapping[str, Semantics], session: Session) -> dict[str, Semantics]:
    """Return the maps to measure: those named, or every option and what this request changed about its own."""
    named, own = session.bench.config.analyze.maps, session.bench.semantics
    if named is not None:
        if not named:
            raise RequestError(f"analyze.maps is empty: name some of {', '.join(maps)}, or null for all.")
        for name in named:
            if name not in maps:
                raise RequestError(
                    f"analyze.maps: no map '{name}'{nearest(name, maps)}; allowed: {', '.join(maps)}."
                )
        return {name: maps[name] for name in named}
    if own in maps.values():
        return dict(maps)
    option = next((name for name, other in maps.items() if type(other) is type(own)), "map")
    return {**maps, f"{option} (as asked for)": own}


def _obtained(subject: Subject, part: str) -> Artifact:
    """Make sure that one part is in the store."""
    session, chosen = subject.session, PARTS[part]
    inputs = chosen.inputs(subject)  # runs the stages before, where the part reads what they leave
    key = content_key({"stage": STAGE, "part": part, "version": VERSION, **inputs})

    def compute(folder: Path) -> Mapping[str, Any]:
        subject.check_vocabularies()
        text = _written(chosen.compute(subject), part)
        (folder / "data.json").write_text(text, encoding="utf-8")
        return {"part": part}

    return session.obtain(STAGE, key, compute, label=f"{STAGE} {part}")


def _written(data: Mapping[str, Any], part: str) -> str:
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError as error:
        raise PktError(
            f"the part {part} came to NaN or infinity ({error}); load the models in float32 or bfloat16 "
            "(model.teacher.dtype, model.student.dtype)."
        ) from error


def _data(artifact: Artifact) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((artifact.path / "data.json").read_text(encoding="utf-8"))
    return data


def _show(session: Session, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print and track tables, draw figures, and leave all of it in the run folder."""
    parts = {}
    for part, data in found.items():
        tables = TABLES[part](data)
        _track(session, part, tables)
        for drawing in FIGURES[part](data):
            session.tracker.figure(f"{STAGE}/{drawing.name}", save(drawing, session.run_dir))
        listed = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in tables]
        parts[part] = {"tables": listed, "data": data}
    text = json.dumps({"parts": parts}, indent=1, allow_nan=False)
    write_atomically(session.run_dir / REPORT, text + "\n")
    for name, path in (
        ("analysis", session.run_dir / REPORT),
        ("run", session.run_dir),
        ("store", session.store.root),
    ):
        console.say(f"{name:<11}{path}")


def _track(session: Session, part: str, tables: list[Table]) -> None:
    """Hand all tables to the tracker, under short names (W&B has a limit), and print those that a console shows."""
    for number, table in enumerate(tables, start=1):
        session.tracker.table(f"{STAGE}/{part}_{number}", table.columns, table.rows)
    for table in tables[: SHOWN[part]]:
        if len(table.columns) <= WIDEST:
            console.say("")
            console.table(table.title, table.columns, table.rows)
