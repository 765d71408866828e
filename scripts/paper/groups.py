"""The results of a plan with groups: a study per group, and what stands above them all.

plan, folders -> Study per group -> picture and table over labels or steps | table of situations -> Report
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paper.lines import line_drawing
from paper.plans import Group, Plan
from paper.when import CONTROLS, PLAIN, RIVALS
from pkt.reporting.cells import difference_cell, score_cell
from pkt.reporting.page.collect import score_topics
from pkt.reporting.page.numbers import numbers
from pkt.reporting.page.report import Report, Section, Topic
from pkt.reporting.runs import Arm, Run, find_runs
from pkt.reporting.study import Study
from pkt.reporting.study_tables import NONE, study_table
from pkt.table import Table

KEPT = ("scores", "notes", "budget")  # topics of a study that are shown
AXES = {
    "labels": "labelled rows",
    "cuts": "optimiser steps",
    "finals": "optimiser steps",
    "meeting": "the share of positions that is compared, %",
}
CLOSED = 0.05  # of a gap; a smaller share is no measure for another
Studies = Mapping[Group, Study]


def grouped_report(plan: Plan, folders: Sequence[Path]) -> Report:
    """Return the report of a plan with groups.

    Args:
        plan: what was run.
        folders: of its jobs, in their order.
    """
    found = studies_of(plan, folders)
    if plan.target == "settings":
        above = [trials_topic(found)]
        return Report(title=plan.title, lead=plan.lead, sections=(_above(plan, above),))
    if plan.target == "tokens":
        above = [tokens_topic(found)]
    elif plan.target == "situations":
        above = situation_topics(found)
    else:
        above = list(axis_topics(plan, {group: study for group, study in found.items() if group.at}))
    sections = (_above(plan, above), *map(_section, found.values()))
    return Report(title=plan.title, lead=plan.lead, sections=sections)


def _above(plan: Plan, topics: Sequence[Topic]) -> Section:
    return Section(title=plan.title, table=topics[0].tables[0], topics=tuple(topics))


def trials_topic(found: Studies) -> Topic:
    """Return a row per trial, each method's best first."""
    rows: list[tuple[str, ...]] = []
    for group, study in found.items():
        arms = dict(zip(group.cells, study.as_read, strict=True))
        order = sorted(arms, key=lambda cell: study.score(arms[cell], study.compared).value, reverse=True)
        rows += [(cell.method, cell.form, _score(study, arms[cell])) for cell in order]
    title = "validation rows, means over tasks ± standard error over rows"
    table = Table(title=title, columns=("method", "settings", "score"), rows=tuple(rows))
    return Topic(name="settings", title="Trials", tables=(table,), kept=True)


def studies_of(plan: Plan, folders: Sequence[Path]) -> dict[Group, Study]:
    """Return each group's study: an arm per cell, called by its name; the first is what the others are compared with.

    Args:
        plan: what was run.
        folders: of its jobs, in their order.
    """
    runs = {Path(run["folder"]).resolve(): run for run in find_runs(folders).runs}
    by_words = {
        job.words: _run_of(folder.resolve(), runs) for job, folder in zip(plan.jobs, folders, strict=True)
    }
    found = {}
    for group in plan.groups:
        arms = tuple(
            Arm(label=cell.name, runs=tuple(by_words[group.words(cell, seed)] for seed in plan.seeds))
            for cell in group.cells
        )
        study = Study.of([run for arm in arms for run in arm.runs], title=group.title)
        found[group] = replace(study, as_read=arms, reference=arms[0], passed_over=())
    return found


def _run_of(folder: Path, runs: Mapping[Path, Run]) -> Run:
    """Return the run of a job; behind a launcher it is in a folder of the job's."""
    return next(run for place, run in runs.items() if folder in (place, *place.parents))


def axis_topics(plan: Plan, found: Studies) -> Iterator[Topic]:
    """Yield, per pair, the picture and the table of its groups side by side."""
    for pair in dict.fromkeys(group.pair for group in found):
        own = {group.at: study for group, study in found.items() if group.pair == pair}
        axis = AXES[plan.target]
        title = f"Scores over {axis}"
        name = f"{plan.target}_{pair}" if pair != plan.pair else plan.target
        drawn = line_drawing(name, title, axis, own) if len(own) > 1 else None
        yield Topic(
            name=name,
            title=f"{title}: {pair}",
            tables=(_side_by_side(own),),
            drawings=(replace(drawn, about=pair),) if drawn else (),
            legend="Bars are one standard error over seeds and rows.",
            kept=True,
        )


def tokens_topic(found: Studies) -> Topic:
    """Return the scores with either teacher, and which share of what the first one closes the second one does."""
    same, other = found.values()
    closed = [_closed(study) for study in (same, other)]
    table = _side_by_side(dict(enumerate(found.values())))
    share = {
        label: f"{100 * closed[1][label] / own:.0f} %" if own > CLOSED and label in closed[1] else NONE
        for label, own in closed[0].items()
    }
    return Topic(
        name="tokens",
        title="Two teachers",
        tables=(
            replace(
                table,
                columns=(*table.columns, "gap closed, of what one closes"),
                rows=tuple((*row, share.get(row[0], NONE)) for row in table.rows),
            ),
        ),
        legend="Gap closed: score minus the student's, of the teacher's minus the student's; the last column is the "
        "share with the second teacher over that with the first, where that is 5 % at least.",
        kept=True,
    )


def _closed(study: Study) -> dict[str, float]:
    """Return the share of the gap between student and teacher that each arm closes."""
    ends = {arm.role: study.score(arm, study.compared).value for arm in study.fixed}
    gap = ends["teacher"] - ends["student"]
    return {
        arm.label: (study.score(arm, study.compared).value - ends["student"]) / gap for arm in study.as_read
    }


def _side_by_side(studies: Mapping[int, Study]) -> Table:
    """Return a row per arm and a column per study, each score with its difference to the study's own reference."""
    first = next(iter(studies.values()))
    roles = ("teacher", "transferred", "student")
    labels = [arm.label for arm in sorted(_models(first), key=lambda arm: roles.index(arm.role))]
    columns = [
        {arm.label: _compared_cell(study, arm) for arm in _models(study)} for study in studies.values()
    ]
    title = (
        f"{first.measure} ± standard error over seeds and rows; in brackets: minus {first.reference.label} in the same "
        "column, with the 95 % interval on the same rows, ≈ where it holds 0"
    )
    return Table(
        title=title,
        columns=("", *(study.title for study in studies.values())),
        rows=tuple((label, *(column[label] for column in columns)) for label in labels),
    )


def _models(study: Study) -> tuple[Arm, ...]:
    return *study.fixed, *study.as_read


def _compared_cell(study: Study, arm: Arm) -> str:
    shown = _score(study, arm)
    if arm.role != "transferred" or arm.label == study.reference.label:
        return shown
    return f"{shown} ({_difference(study, arm, study.reference)})"


def _score(study: Study, arm: Arm) -> str:
    return score_cell(study.score(arm, study.compared), study.metric(study.compared[0]))


def _difference(study: Study, arm: Arm, other: Arm) -> str:
    found = study.difference(arm, other)
    return difference_cell(found, points=study.points) if found else NONE


def situation_topics(found: Studies) -> list[Topic]:
    """Return the one table over all situations."""
    columns = ("situation", "student", "teacher", PLAIN, *RIVALS, "form", *CONTROLS, *_AGAINST)
    title = (
        "means over tasks ± standard error over seeds and rows; the last columns: the form minus what is named, with "
        "95 % intervals on the same rows, ≈ where they hold 0"
    )
    rows = tuple(_situation(group, study) for group, study in found.items())
    return [
        Topic(
            name="situations",
            title="Situations",
            tables=(Table(title=title, columns=columns, rows=rows),),
            kept=True,
        )
    ]


_AGAINST = (f"minus {PLAIN}", "minus kd", "minus best control")


def _situation(group: Group, study: Study) -> tuple[str, ...]:
    arms = dict(zip(group.cells, study.as_read, strict=True))
    of = {cell.method: arm for cell, arm in arms.items() if not cell.control}
    form = arms[group.form]
    controls = {cell.form: arm for cell, arm in arms.items() if cell.control}
    control = best([*controls.values()], study)
    fixed = {arm.role: _score(study, arm) for arm in study.fixed}
    return (
        group.title,
        *(fixed.get(role, NONE) for role in ("student", "teacher")),
        *(_score(study, of[method]) for method in (PLAIN, *RIVALS)),
        f"{_score(study, form)} {group.form.method}",
        *(_score(study, controls[name]) if name in controls else NONE for name in CONTROLS),
        *(_difference(study, form, rival) for rival in (of[PLAIN], of["kd"], control)),
    )


def best(arms: Sequence[Arm], study: Study) -> Arm:
    """Return the arm with the best score."""
    choose = max if study.rises(study.compared[0]) else min
    return choose(arms, key=lambda arm: study.score(arm, study.compared).value)


def _section(study: Study) -> Section:
    topics = [topic for topic in score_topics(study, pairs=False) if topic.name in KEPT and topic]
    table = study_table(study)
    return Section(
        title=study.title, table=table, topics=tuple(topics), numbers=tuple(numbers(study)), study=study
    )
