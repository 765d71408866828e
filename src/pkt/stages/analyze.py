"""`pkt analyze`: what is inside both models, one artifact per part.

part -> step (its settings, the models and rows that it reads) -> store: data.json
     -> tables on the console and in the tracker, PNG files, `analysis.json` in the run folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pkt import console
from pkt.durable import sealed, write_atomically
from pkt.errors import PktError, RequestError, nearest
from pkt.methods.layerwise import no_map
from pkt.methods.workbench import Workbench
from pkt.planner import Planner
from pkt.reporting.figures import save
from pkt.reporting.layer_figures import FIGURES
from pkt.reporting.layer_tables import SHOWN, TABLES
from pkt.run_files import ANALYSIS
from pkt.semantics import Semantics, closed_form
from pkt.stages import evaluate, identity
from pkt.stages.analyze_maps import measured
from pkt.stages.analyze_parts import PARTS
from pkt.stages.analyze_subject import Subject
from pkt.stages.session import Job, Session
from pkt.store import Artifact
from pkt.table import Table

STAGE = "analyze"
DATA = "data.json"
WIDEST = 14  # columns of a table that the console shows; wider ones are in analysis.json and the figures


def subject(bench: Workbench, results: Mapping[str, Artifact], maps: Mapping[str, Semantics]) -> Subject:
    """Return what is analysed.

    Args:
        bench: models, rows and strategies of the request.
        results: filled by the stages before, before a part is measured.
        maps: every option of the group `semantics`, by name.

    Raises:
        RequestError: a part that needs a model or rows that the request leaves out, or an unknown map.
    """
    found = Subject(bench=bench, results=results, maps=_chosen(maps, bench))
    for part in found.parts:
        PARTS[part].check(part, found.config)
    return found


def plan(planner: Planner, of: Subject) -> None:
    """Plan every part, each after the stages whose results it reads."""
    for part in of.parts:
        chosen = PARTS[part]
        planner.analysis(
            part,
            roles=of.roles(chosen.roles),
            rows=of.digests(align=chosen.maps),
            settings=chosen.settings,
            also=({"analyze.maps": measured(of)} if chosen.maps else {})
            | ({"seed": of.bench.config.seed} if chosen.drawn else {}),
            extract=chosen.maps,
            checkpoint=evaluate.checkpoint_identity(of.bench.config),
            maps=of.maps.values() if chosen.maps else (),
        )


def run(of: Subject, job: Job) -> Mapping[str, Any]:
    """Measure the step's part."""
    of.check_vocabularies()
    text = _written(PARTS[job.step.of].compute(of), job.step.of)
    (job.folder / DATA).write_text(text, encoding="utf-8")
    return {"part": job.step.of}


def _chosen(maps: Mapping[str, Semantics], bench: Workbench) -> dict[str, Semantics]:
    """Return the maps to measure: those named, or every option that the pair has and what this request changed."""
    named, own = bench.config.analyze.maps, closed_form(bench.semantics)
    if named is not None:
        if not named:
            raise RequestError(f"analyze.maps is empty: name some of {', '.join(maps)}, or null for all.")
        for name in named:
            if name not in maps:
                raise RequestError(
                    f"analyze.maps: no map '{name}'{nearest(name, maps)}; allowed: {', '.join(maps)}."
                )
        return {name: maps[name] for name in named}
    maps = {name: map_ for name, map_ in maps.items() if no_map(map_, bench) is None}
    if own in maps.values():
        return dict(maps)
    option = next((name for name, other in maps.items() if type(other) is type(own)), "map")
    return {**maps, f"{option} (as asked for)": own}


def _written(data: Mapping[str, Any], part: str) -> str:
    try:
        return json.dumps(data, allow_nan=False)
    except ValueError as error:
        raise PktError(
            f"the part {part} came to NaN or infinity ({error}); load the models in float32 or bfloat16 "
            "(model.teacher.dtype, model.student.dtype)."
        ) from error


def show(session: Session, of: Subject) -> None:
    """Print and track tables, draw figures, and leave all of it in the run folder."""
    parts = {}
    for part in of.parts:
        artifact = session.results[f"{STAGE} {part}"]
        data: dict[str, Any] = json.loads((artifact.path / DATA).read_text(encoding="utf-8"))
        tables = TABLES[part](data)
        _track(session, part, tables)
        for drawing in FIGURES[part](data):
            named = replace(drawing, about=identity.about(session))
            session.tracker.figure(f"{STAGE}/{drawing.name}", save(named, session.run_dir))
        listed = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in tables]
        parts[part] = {"tables": listed, "data": data}
    write_atomically(session.run_dir / ANALYSIS, sealed({"parts": parts}))
    for name, path in (
        ("analysis", session.run_dir / ANALYSIS),
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
