"""What a target leaves: our numbers beside the published ones, as Markdown, LaTeX, data, pictures and a page.

folders of finished jobs -> runs or analyses -> Report -> <out>/<pair>/<target>.{md,tex,jsonl,html} and .png
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pkt.manifest import write_atomically
from pkt.paper.beside import beside_table
from pkt.paper.costs import cost_table, costs
from pkt.paper.layers import resolution, similarity
from pkt.paper.published import published_table
from pkt.paper.targets import PAPER_PAIR, Plan, has_own
from pkt.reporting.figures import Drawing, save
from pkt.reporting.page import render
from pkt.reporting.page.collect import collect
from pkt.reporting.page.model import Part, Report, Section
from pkt.reporting.page.write import write_files
from pkt.reporting.runs import Run, load_runs
from pkt.reporting.study import grouped
from pkt.reporting.table import Table
from pkt.run import provenance
from pkt.tracking.jsonl import plain

KEPT = ("scores", "gap", "pairs", "budget")  # parts of a report that a table of the paper shows
ANALYSED = {"figure2": resolution, "figure4": similarity, "figure5": similarity}
CLAIMS = {
    "figure2": "The paper's Figure 2: a cosine near 1 for the output-side basis, near 0 for the input-side one.",
    "figure4": "The paper's figures compare Llama-2-7B-Chat before and after; no numbers are printed there.",
    "figure5": "The paper's figures compare Llama-2 13B and 7B before and after; no numbers are printed there.",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a target says.

    Attributes:
        plan: what was run.
        report: tables, drawings, and the scores at full precision.
        data: numbers that are no scores, at full precision.
    """

    plan: Plan
    report: Report
    data: Mapping[str, Any]


def result_of(plan: Plan, folders: Sequence[Path], command: str) -> Result:
    """Return what a target says.

    Args:
        plan: what was run.
        folders: of its finished jobs.
        command: the line that makes this target, for the record.
    """
    report, data = _figure(plan, folders) if plan.target in ANALYSED else _table(plan, folders)
    return Result(plan=plan, report=_with_record(report, plan, command), data=data)


def tables_of(report: Report) -> list[Table]:
    """Return the tables that are shown on the console: all but those that are folded on a page."""
    return [
        table
        for section in report.sections
        for part in section.parts
        if part.kept and not part.folded
        for table in part.tables
    ]


def write_results(result: Result, out: Path) -> list[Path]:
    """Write a target's files and return them, the Markdown first.

    Args:
        result: what it says.
        out: where results are collected; a folder per pair is made there.

    Raises:
        PktError: the folder cannot be written.
    """
    plan, report = result.plan, result.report
    folder = out / plan.pair
    files = write_files(report, folder / f"{plan.target}.html")
    pictures = [drawing for section in report.sections for part in section.parts for drawing in part.drawings]
    saved = [save(replace(drawing, name=_file_name(plan, drawing)), folder) for drawing in pictures]
    page = folder / f"{plan.target}.md"
    write_atomically(page, render.markdown(report) + _pictures(pictures, saved))
    if result.data:
        saved.append(folder / f"{plan.target}.json")
        write_atomically(saved[-1], json.dumps(plain(result.data), indent=1) + "\n")
    return [page, *(file for file in files if file != page), *saved]


def _table(plan: Plan, folders: Sequence[Path]) -> tuple[Report, dict[str, Any]]:
    runs = load_runs(folders)
    against = "semalign_joint" if plan.target == "ablations" else "sft"
    report = collect(runs, against=against, pairs=plan.target != "ablations")
    sections = tuple(
        replace(section, parts=_costs(group) if plan.target == "efficiency" else _shown(section))
        for section, group in zip(report.sections, grouped(runs, against), strict=True)
    )
    report = replace(report, title=plan.title, sections=(_claimed(plan, runs, sections[0]), *sections[1:]))
    return report, costs(runs) if plan.target == "efficiency" else {}


def _figure(plan: Plan, folders: Sequence[Path]) -> tuple[Report, dict[str, Any]]:
    tables, drawings, data = ANALYSED[plan.target](plan.target, folders)
    part = Part(
        name="layers",
        title="Layer by layer",
        sentences=(CLAIMS[plan.target],),
        tables=tables,
        drawings=drawings,
        kept=True,
    )
    section = Section(pair=plan.pair, benchmark="validation rows", table=tables[0], parts=(part,), numbers=())
    return Report(title=plan.title, lead="", sections=(section,)), data


def _costs(runs: Sequence[Run]) -> tuple[Part, ...]:
    return (Part(name="costs", title="Costs", tables=(cost_table(runs),), kept=True),)


def _shown(section: Section) -> tuple[Part, ...]:
    return tuple(part for part in section.parts if part.name in KEPT)


def _claimed(plan: Plan, runs: Sequence[Run], section: Section) -> Section:
    """Return a section with the published numbers behind ours, where there are any."""
    tables = [table for table in (beside_table(runs, plan.target), published_table(plan.target)) if table]
    if not tables:
        return section
    part = Part(name="published", title="Published numbers", tables=tuple(tables), kept=True)
    return replace(section, parts=(*section.parts, part))


def _with_record(report: Report, plan: Plan, command: str) -> Report:
    """Return a report that says on which pair, by which command and from which commit it was made."""
    made = provenance()
    rows = (
        ("command", command),
        ("commit", str(made["git"] or "not a checkout")),
        ("made", datetime.now(UTC).date().isoformat()),
        ("machine", f"{made['device']}, {made['platform']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in made["packages"].items())),
        ("jobs", str(len(plan.jobs))),
    )
    table = Table(title="where this comes from", columns=("", "value"), rows=rows)
    part = Part(name="record", title="Record", tables=(table,), kept=True)
    last = report.sections[-1]
    sections = (*report.sections[:-1], replace(last, parts=(*last.parts, part)))
    return replace(report, lead=_lead(plan), sections=sections)


def _lead(plan: Plan) -> str:
    """Say plainly which pair this is."""
    if plan.pair == PAPER_PAIR:
        return "The paper's pair."
    text = (
        f"Made on the pair {plan.pair}, which is not the paper's (Llama-2 13B and 7B): "
        "these numbers and the published ones are on different models, and are not comparable."
    )
    if has_own(plan.pair):
        text += " One student is trained on all tasks together; the paper trains one per benchmark."
    return text


def _file_name(plan: Plan, drawing: Drawing) -> str:
    return drawing.name if drawing.name.startswith(plan.target) else f"{plan.target}_{drawing.name}"


def _pictures(drawings: Sequence[Drawing], files: Sequence[Path]) -> str:
    blocks = [
        f"**{drawing.title}**\n\n![{drawing.alt}]({file.name})\n"
        for drawing, file in zip(drawings, files, strict=True)
    ]
    return "\n" + "\n".join(blocks) if blocks else ""
