"""From runs to a `Report`: what each section holds, in the order in which it is shown.

runs -> by model pair and benchmark -> Study -> parts, each only where its data is there
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pkt.reporting.comparison import pairs_table
from pkt.reporting.figures import Drawing
from pkt.reporting.layer_figures import FIGURES
from pkt.reporting.page import charts, facts
from pkt.reporting.page.analyses import Analysis, analysed_parts
from pkt.reporting.page.curves import loss_curves
from pkt.reporting.page.examples import example_part
from pkt.reporting.page.model import Part, Report, Section
from pkt.reporting.page.numbers import Study, findings, gap_table, numbers, scores_and_budget
from pkt.reporting.runs import Arm, Run
from pkt.reporting.study import comparison_of, grouped, study_table
from pkt.reporting.table import Table


def collect(
    runs: Sequence[Run],
    *,
    against: str | None = None,
    pairs: bool = False,
    analyses: Sequence[Analysis] = (),
) -> Report:
    """Read everything that a report over these runs says.

    Args:
        runs: of any models and benchmarks.
        against: method or label of the arm that the others are compared with (default: `sft`, or the first arm).
        pairs: compare every arm with every other.
        analyses: what `pkt analyze` left for some of them.

    Raises:
        RequestError: no run is called `against`.
    """
    groups = grouped(runs, against)
    sections = tuple(_section(group, against, pairs, analyses) for group in groups)
    what = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    names = [section.title for section in sections]
    title = f"{runs[0]['method']}: {names[0]}" if len(runs) == 1 else names[0]
    if len(sections) > 1:
        title = f"{len(sections)} studies"
    return Report(title=title, lead=f"{what} of {'; '.join(names)}.", sections=sections)


def _section(runs: Sequence[Run], against: str | None, pairs: bool, analyses: Sequence[Analysis]) -> Section:
    study = Study.of(runs, comparison_of(runs, against))
    table = study_table(runs, "", study.comparison)
    parts = (*_score_parts(study, table, pairs=pairs), *_run_parts(study, analyses))
    return Section(
        pair=study.pair,
        benchmark=study.benchmark,
        table=table,
        parts=tuple(part for part in parts if part),
        numbers=tuple(numbers(study)),
    )


def _score_parts(study: Study, table: Table, *, pairs: bool) -> Iterator[Part]:
    scores, budget = scores_and_budget(study, table)
    yield Part(name="scores", title="Scores", sentences=findings(study), tables=(scores,), kept=True)
    shares = gap_table(study)
    yield Part(
        name="gap",
        title="Gap closed",
        tables=(shares,) if shares else (),
        drawings=charts.gap_charts(study),
        legend="A hollow mark is an interval that holds 0.",
        kept=True,
    )
    yield Part(
        name="differences",
        title="Differences",
        drawings=charts.difference_charts(study),
        legend="A hollow mark is a difference inside the noise.",
    )
    matrix = pairs_table(study.comparison, [arm.label for arm in study.arms]) if pairs else None
    yield Part(
        name="pairs",
        title="Every arm against every other",
        tables=(matrix,) if matrix else (),
        folded=True,
        kept=True,
    )
    if budget.rows:
        yield Part(name="budget", title="Budget", tables=(budget,), kept=True)


def _run_parts(study: Study, analyses: Sequence[Analysis]) -> Iterator[Part]:
    arms = study.arms
    best = facts.first_run(arms[0])
    yield Part(name="losses", title="Losses", drawings=_curves(arms), folded=len(arms) > 3)
    yield _layer_part(arms, analyses)
    yield example_part(best, arms[0].label)
    tables = facts.recipe_tables(arms)
    yield Part(name="recipe", title="Recipe", tables=(*tables, facts.commands(arms)), folded=True)
    made = facts.environment(study.runs)
    yield Part(name="environment", title="Environment", tables=(made,) if made else (), folded=True)
    stages = facts.stage_table(study.runs)
    yield Part(name="stages", title="Computed and reused", tables=(stages,) if stages else (), folded=True)


def _curves(arms: Sequence[Arm]) -> tuple[Drawing, ...]:
    drawings = []
    for index, arm in enumerate(arms):
        run = facts.first_run(arm)
        if curves := loss_curves(run):
            drawings.append(charts.curve_chart(f"{arm.label}, seed {run['seed']}", curves, f"loss_{index}"))
    return tuple(drawings)


def _layer_part(arms: Sequence[Arm], analyses: Sequence[Analysis]) -> Part:
    """Return what stages and `pkt analyze` say of the layers of each arm's first run."""
    tables: list[Table] = []
    drawings: list[Drawing] = []
    for arm in arms:
        run = facts.first_run(arm)
        heading = f"{arm.label}: " if len(arms) > 1 else ""
        found = list(_analysed(analysed_parts(run, analyses)))
        tables += [
            replace(table, title=heading + table.title)
            for table in (*facts.stage_tables(run), *(table for table, _ in found if table))
        ]
        drawings += [
            replace(drawing, title=heading + drawing.title)
            for drawing in (*facts.layer_drawings(run), *(drawing for _, drawing in found if drawing))
        ]
    return Part(
        name="layers",
        title="Layers and maps",
        sentences=("Of each arm's lowest seed.",) if len(arms) > 1 and (tables or drawings) else (),
        tables=tuple(tables),
        drawings=tuple(drawings),
        folded=len(arms) > 1,
    )


def _analysed(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Table | None, Drawing | None]]:
    for name, part in parts.items():
        for table in part.get("tables", []):
            rows = tuple(tuple(map(str, row)) for row in table["rows"])
            yield Table(title=table["title"], columns=tuple(map(str, table["columns"])), rows=rows), None
        if name in FIGURES and part.get("data"):
            for drawing in FIGURES[name](part["data"]):
                yield None, drawing
