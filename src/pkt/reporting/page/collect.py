"""From runs to a `Report`: what each section holds, in the order in which it is shown.

runs -> studies (equal models, rows and scoring) -> topics, each only where its data is there
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pkt.reporting.figures import Drawing
from pkt.reporting.layer_figures import FIGURES
from pkt.reporting.page import charts, facts, tradeoffs
from pkt.reporting.page.analyses import Analysis, analysed_parts, tables_of
from pkt.reporting.page.answer import answer_topic
from pkt.reporting.page.curves import curve_chart, last_validations, loss_curves
from pkt.reporting.page.examples import example_topic
from pkt.reporting.page.numbers import findings, numbers
from pkt.reporting.page.report import Report, Section, Topic
from pkt.reporting.runs import Arm, Run
from pkt.reporting.study import Study, studies
from pkt.reporting.study_tables import (
    budget_table,
    gap_table,
    pairs_table,
    runs_table,
    scores_table,
    study_table,
)
from pkt.table import Table


def collect(
    runs: Sequence[Run],
    *,
    against: str | None = None,
    pairs: bool = False,
    analyses: Sequence[Analysis] = (),
    left_out: Sequence[str] = (),
) -> Report:
    """Make the report over these runs.

    Args:
        runs: of any models and benchmarks.
        against: method or label of the arm that the others are compared with (default: `sft`, or the first arm).
        pairs: compare every arm with every other.
        analyses: what `pkt analyze` left for some of them.
        left_out: a sentence for each thing that was found beside the runs and is not shown.

    Raises:
        RequestError: no run is called `against`.
    """
    sections = tuple(_section(study, pairs, analyses) for study in studies(runs, against))
    what = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    names = [section.title for section in sections]
    title = f"{runs[0]['method']}: {names[0]}" if len(runs) == 1 else names[0]
    if len(sections) > 1:
        title = f"{len(sections)} studies"
    passed_over = [told for section in sections if section.study for told in section.study.passed_over]
    return Report(
        title=title,
        lead=f"{what} of {'; '.join(names)}.",
        sections=sections,
        left_out=(*left_out, *passed_over),
    )


def _section(study: Study, pairs: bool, analyses: Sequence[Analysis]) -> Section:
    topics = (*score_topics(study, pairs=pairs), *_run_topics(study, analyses))
    return Section(
        title=study.title,
        table=study_table(study),
        topics=tuple(_named(topic, study) for topic in topics if topic),
        numbers=tuple(numbers(study)),
        study=study,
    )


def _named(topic: Topic, study: Study) -> Topic:
    """Return a topic whose drawings say whose numbers they show; a picture travels without its page.

    That is the arm that a drawing is about, or the only one; a drawing of several arms has their names in it.
    """
    only = study.arms[0].label if len(study.arms) == 1 else ""
    drawings = (
        replace(drawing, about=": ".join(filter(None, (drawing.about or only, study.title))))
        for drawing in topic.drawings
    )
    return replace(topic, drawings=tuple(drawings))


def score_topics(study: Study, *, pairs: bool) -> Iterator[Topic]:
    """Yield what the scores of a study say.

    Args:
        study: the study.
        pairs: compare every arm with every other.
    """
    yield answer_topic(study)
    scores, budget = scores_table(study), budget_table(study)
    yield Topic(name="scores", title="Scores", sentences=findings(study), tables=(scores,), kept=True)
    noted = dict.fromkeys(note for run in study.runs for note in run.get("notes", ()))
    yield Topic(name="notes", title="Notes on rows and answers", sentences=tuple(noted), kept=True)
    yield Topic(
        name="gap",
        title="Gap closed",
        tables=_there(gap_table(study)),
        drawings=charts.gap_charts(study),
        legend="A hollow mark is an interval that holds 0.",
        kept=True,
    )
    yield Topic(
        name="differences",
        title="Differences",
        drawings=charts.difference_charts(study),
        legend="A hollow mark is a difference inside the noise.",
    )
    matrix = _there(pairs_table(study) if pairs else None)
    yield Topic(name="pairs", title="Every arm against every other", tables=matrix, folded=True, kept=True)
    yield Topic(
        name="budget",
        title="Budget",
        tables=(budget,) if budget.rows else (),
        kept=True,
    )
    yield Topic(name="costs", title="Quality against cost", drawings=tradeoffs.cost_charts(study))


def _run_topics(study: Study, analyses: Sequence[Analysis]) -> Iterator[Topic]:
    arms = study.arms
    yield _loss_topic(arms)
    yield _layer_topic(arms, analyses)
    yield example_topic(arms[0].first, arms[0].label)
    snippets, settings = facts.commands(arms), facts.recipe_tables(arms)
    yield Topic(name="recipe", title="Recipe", snippets=snippets, tables=settings, folded=True)
    made = _there(facts.environment(study.runs))
    yield Topic(name="environment", title="Environment", tables=made, folded=True)
    yield Topic(name="runs", title="Seeds and folders", tables=_there(runs_table(study)), folded=True)
    stages = _there(facts.stage_table(study.runs))
    yield Topic(name="stages", title="Computed and reused", tables=stages, folded=True)


def _there(table: Table | None) -> tuple[Table, ...]:
    return (table,) if table else ()


def _loss_topic(arms: Sequence[Arm]) -> Topic:
    """Return each arm's losses; whose training was reused, and where that left no losses to show."""
    curves = {arm.label: loss_curves(arm.first) for arm in arms}
    reused = {arm.label for arm in arms if _reused(arm.first, "transfer")}
    drawings = [
        replace(
            curve_chart(
                f"Losses, seed {arm.first['seed']}" + (" (training reused)" if arm.label in reused else ""),
                curves[arm.label],
                f"loss_{index}",
            ),
            about=arm.label,
        )
        for index, arm in enumerate(arms)
        if curves[arm.label]
    ]
    bare = [label for label in reused if not curves[label]]
    trained = [
        arm.label for arm in arms if arm.label in bare and arm.first.get("budget", {}).get("optimiser_steps")
    ]
    told = (f"Reused from a result that kept no losses: {', '.join(trained)}.",) if trained else ()
    return Topic(
        name="losses",
        title="Losses and validations",
        sentences=told,
        drawings=(*tradeoffs.validation_charts(arms), *drawings),
        tables=_there(last_validations(arms)),
        folded=len(arms) > 3,
    )


def _reused(run: Run, label: str) -> bool:
    return any(stage["stage"] == label and stage["reused"] for stage in run["stages"])


def _layer_topic(arms: Sequence[Arm], analyses: Sequence[Analysis]) -> Topic:
    """Return what stages and `pkt analyze` say of the layers of each arm's first run."""
    tables: list[Table] = []
    drawings: list[Drawing] = []
    for arm in arms:
        heading = f"{arm.label}: " if len(arms) > 1 else ""
        parts = analysed_parts(arm.first, analyses)
        own = [
            *facts.stage_tables(arm.first),
            *(table for part in parts.values() for table in tables_of(part)),
        ]
        tables += [replace(table, title=heading + table.title) for table in own]
        drawn = [*facts.layer_drawings(arm.first)]
        for name, part in parts.items():
            drawn += FIGURES[name](part["data"]) if name in FIGURES and part.get("data") else []
        drawings += [replace(drawing, about=arm.label) for drawing in drawn]
    return Topic(
        name="layers",
        title="Layers and maps",
        sentences=("Of each arm's lowest seed.",) if len(arms) > 1 and (tables or drawings) else (),
        tables=tuple(tables),
        drawings=tuple(drawings),
        folded=len(arms) > 1,
    )
