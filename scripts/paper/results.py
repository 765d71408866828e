"""The files of a target: our numbers beside the published ones, as Markdown, LaTeX, data, pictures and a page.

folders of finished jobs -> runs or analyses -> Report -> <out>/<pair>/<target>.{md,tex,jsonl,html} and .png
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paper.groups import grouped_report
from paper.layers import resolution, similarity
from paper.plans import OWN, Plan
from paper.published import beside_table, published_table
from paper.targets import PAPER_PAIR
from pkt.durable import write_atomically
from pkt.errors import RequestError
from pkt.reporting.figures import Drawing, save
from pkt.reporting.page import render
from pkt.reporting.page.collect import collect
from pkt.reporting.page.report import Report, Section, Topic
from pkt.reporting.page.write import write_files
from pkt.reporting.runs import find_runs
from pkt.reporting.study import Study
from pkt.reporting.study_tables import BUDGET, cost_values, share_cell
from pkt.surroundings import provenance
from pkt.table import Table
from pkt.tracking.jsonl import plain

KEPT = ("scores", "gap", "pairs", "budget")  # topics of a report that a table of the paper shows
RECORD = "| command | python "  # in every target's page
ANALYSED = {"figure2": resolution, "figure4": similarity, "figure5": similarity}
CLAIMS = {
    "figure2": "The paper's Figure 2: a cosine near 1 for the output-side basis, near 0 for the input-side one.",
    "figure4": "The paper's figures compare Llama-2-7B-Chat before and after; no numbers are printed there.",
    "figure5": "The paper's figures compare Llama-2 13B and 7B before and after; no numbers are printed there.",
}


def result_of(plan: Plan, folders: Sequence[Path], command: str) -> tuple[Report, Mapping[str, Any]]:
    """Return a target's report, and its numbers that are no scores at full precision.

    Args:
        plan: what was run.
        folders: of its finished jobs.
        command: the line that makes this target, for the record.
    """
    if plan.groups:
        return _with_record(grouped_report(plan, folders), plan, command), {}
    report, data = _figure(plan, folders) if plan.target in ANALYSED else _table(plan, folders)
    return _with_record(report, plan, command), data


def check_place(plan: Plan, out: Path) -> None:
    """Refuse, before any job, a place that cannot take a target's files or has files of another's there.

    Raises:
        RequestError: a file in the place of a folder, or files of these names that no target has left.
    """
    folder = out / plan.pair
    if file := next((path for path in (folder, out) if path.exists() and not path.is_dir()), None):
        raise RequestError(f"--out: {file} is a file; give a folder for results")
    page = folder / f"{plan.target}.md"
    if page.is_file() and RECORD in page.read_text(encoding="utf-8", errors="replace"):
        return
    others = [page.with_suffix(suffix) for suffix in (".md", ".tex", ".jsonl", ".html", ".json")]
    if there := next((file for file in others if file.exists()), None):
        raise RequestError(
            f"--out: {there} is there, and not of an earlier target; give another folder, or move it"
        )


def tables_of(report: Report) -> list[Table]:
    """Return the tables that are shown on the console: all but those that are folded on a page."""
    topics = (topic for section in report.sections for topic in section.topics)
    return [table for topic in topics if topic.kept and not topic.folded for table in topic.tables]


def write_results(plan: Plan, report: Report, data: Mapping[str, Any], out: Path) -> list[Path]:
    """Write a target's files and return them, the Markdown first.

    Args:
        plan: what was run.
        report: its tables, drawings and scores.
        data: its other numbers; no file where there are none.
        out: where results are collected; a folder per pair is made there.

    Raises:
        PktError: the folder cannot be written.
    """
    folder = out / plan.pair
    files = write_files(report, folder / f"{plan.target}.html")
    drawings = [one for section in report.sections for topic in section.topics for one in topic.drawings]
    saved = [save(replace(drawing, name=_file_name(plan, drawing)), folder) for drawing in drawings]
    pictures = [
        f"\n**{drawing.heading}**\n\n![{drawing.alt}]({file.name})\n"
        for drawing, file in zip(drawings, saved, strict=True)
    ]
    page = folder / f"{plan.target}.md"
    write_atomically(page, render.markdown(report) + "".join(pictures))
    if data:
        saved.append(folder / f"{plan.target}.json")
        write_atomically(saved[-1], json.dumps(plain(data), indent=1) + "\n")
    return [page, *(file for file in files if file != page), *saved]


def _table(plan: Plan, folders: Sequence[Path]) -> tuple[Report, Mapping[str, Any]]:
    """Return the report on a target's runs, with the published numbers behind ours where there are any."""
    ablations = plan.target == "ablations"
    found = find_runs(folders)
    report = collect(
        found.runs,
        against="semalign_joint" if ablations else "sft",
        pairs=not ablations,
        left_out=found.left_out,
    )
    studies = [section.study for section in report.sections if section.study]
    claims = [table for table in (beside_table(studies, plan.target), published_table(plan.target)) if table]
    claimed = Topic(name="published", title="Published numbers", tables=tuple(claims), kept=True)
    sections = []
    for place, (section, study) in enumerate(zip(report.sections, studies, strict=True)):
        topics = [topic for topic in section.topics if topic.name in KEPT]
        if plan.target == "efficiency":
            topics = [Topic(name="costs", title="Costs", tables=(_cost_table(study),), kept=True)]
        topics += [claimed] if claims and place == 0 else []
        sections.append(replace(section, topics=tuple(topics)))
    report = replace(report, title=plan.title, sections=tuple(sections))
    return report, _costs(studies) if plan.target == "efficiency" else {}


def _cost_table(study: Study) -> Table:
    """Return one row per arm, the cheapest in seconds first."""
    order = sorted(study.arms, key=lambda arm: statistics.fmean(cost_values(arm, "seconds") or [math.inf]))
    rows = []
    for arm in order:
        cells = [_cell(cost_values(arm, key), unit) for key, unit in BUDGET.values()]
        rows.append((arm.label, *cells, share_cell(study, arm, study.pooled)))
    title = "extract, align and transfer together, no evaluation; mean over seeds [lowest, highest] where they differ"
    return Table(title=title, columns=("", *BUDGET, "gap closed"), rows=tuple(rows))


def _costs(studies: Sequence[Study]) -> dict[str, Any]:
    """Return arm -> cost -> its value of every seed, in a run's units; by study where there are several."""
    costs = {
        study.title: {
            arm.label: {key: cost_values(arm, key) for key, _ in BUDGET.values()} for arm in study.arms
        }
        for study in studies
    }
    return costs if len(costs) > 1 else next(iter(costs.values()))


def _cell(values: Sequence[float], unit: int) -> str:
    """Return ``108 [104, 113]``, or the mean alone where the seeds agree to the digits shown."""
    if not values:
        return "–"
    low, mean, high = (
        f"{value / unit:,.0f}" for value in (min(values), statistics.fmean(values), max(values))
    )
    return mean if low == high else f"{mean} [{low}, {high}]"


def _figure(plan: Plan, folders: Sequence[Path]) -> tuple[Report, Mapping[str, Any]]:
    tables, drawings, data = ANALYSED[plan.target](plan.target, folders)
    topic = Topic(
        name="layers",
        title="Layer by layer",
        sentences=(CLAIMS[plan.target],),
        tables=tables,
        drawings=tuple(replace(drawing, about=plan.pair) for drawing in drawings),
        kept=True,
    )
    section = Section(title=f"{plan.pair} on validation rows", table=tables[0], topics=(topic,))
    return Report(title=plan.title, lead="", sections=(section,)), data


def _with_record(report: Report, plan: Plan, command: str) -> Report:
    """Return a report with the pair, the command and the commit that it was made from."""
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
    record = Topic(name="record", title="Record", tables=(table,), kept=True)
    *others, last = report.sections
    sections = (*others, replace(last, topics=(*last.topics, record)))
    return replace(report, lead=plan.lead or _lead(plan), sections=sections)


def _lead(plan: Plan) -> str:
    """Return a warning where the pair is not the paper's."""
    if plan.pair == PAPER_PAIR:
        return "The paper's pair."
    text = (
        f"Made on the pair {plan.pair}, which is not the paper's (Llama-2 13B and 7B): "
        "these numbers and the published ones are on different models, and are not comparable."
    )
    if plan.pair in OWN:
        text += " One student is trained on all tasks together; the paper trains one per benchmark."
    return text


def _file_name(plan: Plan, drawing: Drawing) -> str:
    return drawing.name if drawing.name.startswith(plan.target) else f"{plan.target}_{drawing.name}"
