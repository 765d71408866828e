"""What is asked first of a study: did it help, how sure is that, and at what cost.

best arm ──> a sentence each     every arm ──> a row: gain over the untouched student, share of the gap, costs
"""

from __future__ import annotations

from collections.abc import Iterator

from pkt.reporting.cells import difference_cell
from pkt.reporting.page.facts import commands
from pkt.reporting.page.report import Snippet, Topic
from pkt.reporting.runs import Arm
from pkt.reporting.study import Study
from pkt.reporting.study_tables import BUDGET, NONE, budget_cells, share_cell
from pkt.reporting.verdict import Verdict, arm_verdict, gain_of
from pkt.table import Table

_UNTOLD = (
    "whether it helped cannot be told: there are no answers of the untouched student and of this one to the same rows, "
    "or too few that differ."
)
_COSTS = ("student ktokens", "teacher ktokens", "seconds", "peak MB")


def answer_topic(study: Study) -> Topic:
    """Return the first thing that a page of a study says, with the command of its best arm.

    Args:
        study: whose arms are compared with the untouched student.
    """
    best = study.arms[0]
    found = arm_verdict(study, best)
    snippets = list(commands([best])[:1])
    if found and found.command:
        snippets.append(Snippet(title="to try next", text=found.command))
    return Topic(
        name="answer",
        title="Did it help, how sure is that, at what cost",
        sentences=tuple(_sentences(study, best, found)),
        tables=(_table(study),) if len(study.arms) > 1 else (),
        snippets=tuple(snippets),
    )


def lines(study: Study) -> Iterator[tuple[str, str]]:
    """Yield what a study comes to and what to try next, for a terminal: a word and its line each."""
    best = study.arms[0]
    found = arm_verdict(study, best)
    told = found.sentence if found else _UNTOLD.removesuffix(".")
    yield "result", f"{_whose(study, best)}{told}{_ahead(study, best)}"
    if found and found.remedy:
        yield "next", found.remedy


def _ahead(study: Study, best: Arm) -> str:
    """Return how far the best arm is from the one that others are compared with; nothing where it is that one."""
    other = study.reference
    gap = study.difference(best, other) if best.label != other.label else None
    return f"; {difference_cell(gap, points=study.points)} against {other.label}" if gap else ""


def _whose(study: Study, best: Arm) -> str:
    return f"{best.label}, the best of {len(study.arms)} arms: " if len(study.arms) > 1 else ""


def _sentences(study: Study, best: Arm, found: Verdict | None) -> Iterator[str]:
    whose = _whose(study, best)
    told = f"{found.sentence}." if found else _UNTOLD
    yield f"{whose}{told}" if whose else f"{told[:1].upper()}{told[1:]}"
    if found:
        yield _how_sure(study, best)
    if spent := _spent(best):
        yield f"Its cost, evaluation left out: {spent}."
    if found and found.advice:
        yield f"To try next: {found.advice}"


def _how_sure(study: Study, arm: Arm) -> str:
    """Return what the interval is over, and what it leaves out."""
    counts = [study.row_count(task) for task in study.compared]
    known = [count for count in counts if count is not None]
    rows = f"{sum(known):,} {study.split} rows" if len(known) == len(counts) else f"the {study.split} rows"
    over = f"{rows} and {len(arm.runs)} seeds" if len(arm.runs) > 1 else f"{rows} of one seed"
    rest = "" if len(arm.runs) > 1 else "; it does not cover how another seed would end"
    beside = "paired with the untouched student's answers"
    return f"How sure: the brackets are the 95 % interval over {over}, {beside}{rest}."


def _spent(arm: Arm) -> str:
    """Return what an arm cost, in words."""
    cells = dict(zip(BUDGET, budget_cells(arm.runs), strict=True))
    units = {
        "steps": "optimiser steps",
        "student ktokens": "thousand tokens of the student",
        "teacher ktokens": "thousand of the teacher",
        "seconds": "seconds",
        "peak MB": "MB at the peak",
    }
    return ", ".join(f"{cells[name]} {unit}" for name, unit in units.items() if cells[name] != NONE)


def _table(study: Study) -> Table:
    """Return a row per arm, best first, with the costs that are known of any."""
    costs = {arm.label: dict(zip(BUDGET, budget_cells(arm.runs), strict=True)) for arm in study.arms}
    known = [name for name in _COSTS if {own[name] for own in costs.values()} != {NONE}]
    rows = tuple((*_row(study, arm), *(costs[arm.label][name] for name in known)) for arm in study.arms)
    measure = f"points, {study.measure.removesuffix(', in points')}" if study.points else study.measure
    title = f"{measure} [95 % interval on the same rows], ≈ where it holds 0; costs: mean over seeds"
    return Table(
        title=title, columns=("", "against the untouched student", "gap closed", "seeds", *known), rows=rows
    )


def _row(study: Study, arm: Arm) -> tuple[str, ...]:
    gain = gain_of(study, arm)
    gained = difference_cell(gain, points=study.points) if gain else NONE
    return arm.label, gained, share_cell(study, arm, study.pooled) or NONE, str(len(arm.runs))
