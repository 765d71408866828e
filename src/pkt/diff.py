"""`pkt diff RUN RUN`: what sets two runs apart: settings, results of stages, scores on the same rows, answers.

    two run folders ──> settings that differ, why a stage's result is another one (their manifests), what each cost
                    ──> scores, second minus first, paired row by row; rows that only one of them got right

A plain command: nothing is composed, and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt import console
from pkt.differences import changes
from pkt.durable import read_json
from pkt.errors import RequestError
from pkt.evaluation.paired import difference, differing, resample, supported
from pkt.evaluation.statistics import mean_of_all
from pkt.manifest import MANIFEST
from pkt.reporting.answers import Answered, artifact_folder, read_answers, read_records, stack
from pkt.reporting.cells import difference_cell, score_cell
from pkt.reporting.examples import Record, is_right, records_by_row
from pkt.reporting.gaps import MEAN, estimate_of
from pkt.reporting.metrics import averaged, headlines, is_share
from pkt.reporting.overrides import overrides
from pkt.reporting.runs import Run, load_runs
from pkt.reporting.study_tables import BUDGET, NONE, budget_cells

SHOWN = 3  # rows of a task that only one of the two got right
_SAID = 60  # letters of an answer
_OTHER_ROWS = "not the same rows"
ROLE = "transferred"


def main(words: Sequence[str]) -> int:
    """Compare two runs.

    Args:
        words: the command line after ``pkt diff``: two folders that `pkt run` or `pkt eval` has left.

    Raises:
        RequestError: not two folders, or one without scores of a transferred student.
    """
    if {"-h", "--help"} & set(words):
        console.say((__doc__ or "").rpartition("\n\n")[0])
        return 0
    if len(words) != 2:
        raise RequestError(f"pkt diff: two folders of runs are expected, got {len(words)}")
    first, second = (_run(word) for word in words)
    console.table("runs", ("", "folder"), [("A", first["folder"]), ("B", second["folder"])])
    _table("settings", ("key", "A", "B"), _settings(first, second), f" ({NONE}: not read, or at its default)")
    _table("results of stages", ("stage", "A", "B", "why"), _stages(first, second))
    _table("cost", ("", "A", "B"), _costs(first, second))
    _table("scores of the student", ("task", "A", "B", "B - A, same rows"), _scores(first, second))
    for sentence in _rows(first, second):
        console.say(sentence)
    return 0


def _run(named: str) -> Run:
    if not Path(named).is_dir():
        raise RequestError(f"pkt diff: no folder {named}; name two that `pkt run` has left")
    found = load_runs([Path(named)])
    if len(found) > 1:
        raise RequestError(
            f"pkt diff: {named} holds {len(found)} runs; name one of them (pkt report compares many)"
        )
    return found[0]


def _table(title: str, columns: Sequence[str], rows: Iterator[tuple[str, ...]], note: str = "") -> None:
    found = list(rows)
    if found:
        console.table(f"{title}{note}", columns, found)
    else:
        console.say(f"{title}: none differ")


def _settings(first: Run, second: Run) -> Iterator[tuple[str, str, str]]:
    sides = [
        {"benchmark": run["benchmark"], "eval.split": run["split"], "seed": str(run["seed"])} | overrides(run)
        for run in (first, second)
    ]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        values = [side.get(key, NONE) for side in sides]
        if values[0] != values[1]:
            yield (key, *values)


def _stages(first: Run, second: Run) -> Iterator[tuple[str, str, str, str]]:
    keys = [{str(stage["stage"]): str(stage["key"]) for stage in run["stages"]} for run in (first, second)]
    for name in dict.fromkeys([*keys[0], *keys[1]]):
        own = [side.get(name, NONE) for side in keys]
        if own[0] != own[1]:
            yield name, own[0], own[1], "only one run has it" if NONE in own else _why(first, second, name)


def _why(first: Run, second: Run, stage: str) -> str:
    """Return how the ingredients of a stage's two results differ, as far as the store still has both."""
    folders = [artifact_folder(run, stage) for run in (first, second)]
    manifests = [
        read_json(folder / MANIFEST) for folder in folders if folder and (folder / MANIFEST).is_file()
    ]
    if len(manifests) < 2:
        return "one of them is no longer in the store"
    made = [manifest["ingredients"] for manifest in manifests if "ingredients" in manifest]
    if len(made) < 2:
        return "an older format, which kept no ingredients"
    told = changes(made[0], made[1]) or ["the same ingredients"]
    return "; ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if len(told) > SHOWN else "")


def _scores(first: Run, second: Run) -> Iterator[tuple[str, str, str, str]]:
    """Yield the scores of each task and, where all are shares of right answers, of their mean."""
    sides = [run["scores"][ROLE] for run in (first, second)]
    answers = read_answers(first, ROLE), read_answers(second, ROLE)
    tasks = list(dict.fromkeys([*sides[0], *sides[1]]))
    for task in tasks:
        scores = [side.get(task) for side in sides]
        points = all(score and is_share(score["metric"]) for score in scores)
        told = _gained(*answers, [task], points=points) if None not in scores else NONE
        yield task, _cell(scores[0]), _cell(scores[1]), told
    counted = headlines(sides[0])
    shares = averaged(score for side in sides for score in side.values())
    if len(counted) > 1 and shares and sides[0].keys() == sides[1].keys():
        means = [mean_of_all([estimate_of(side[task]) for task in counted]) for side in sides]
        cells = [score_cell(mean, sides[0][counted[0]]["metric"]) for mean in means]
        yield MEAN, cells[0], cells[1], _gained(*answers, counted, points=True)


def _cell(score: Mapping[str, Any] | None) -> str:
    return NONE if score is None else score_cell(estimate_of(score), str(score["metric"]))


def _gained(
    first: Mapping[str, Answered], second: Mapping[str, Answered], tasks: Sequence[str], *, points: bool
) -> str:
    """Return second minus first with its interval, mean over tasks, where they answered the same rows."""
    if not all(task in answers for task in tasks for answers in (first, second)):
        return _OTHER_ROWS
    like = {task: first[task] for task in tasks}
    stacked = [stack([own], like) for own in (second, first)]
    if stacked[0] is None or stacked[1] is None:
        return _OTHER_ROWS
    found = difference(resample(stacked[0]), resample(stacked[1]))
    return difference_cell(supported(found, differing(stacked[0], stacked[1])), points=points)


def _costs(first: Run, second: Run) -> Iterator[tuple[str, str, str]]:
    sides = [dict(zip(BUDGET, budget_cells([run]), strict=True)) for run in (first, second)]
    for name in BUDGET:
        cells = [side[name] for side in sides]
        if cells[0] != cells[1]:
            yield name, cells[0], cells[1]


def _rows(first: Run, second: Run) -> Iterator[str]:
    """Yield, per task, how many rows only one of the two got right, and some of them."""
    records = [read_records(run, ROLE) for run in (first, second)]
    for task in (name for name in records[0] if name in records[1]):
        rows = records_by_row({"A": records[0][task], "B": records[1][task]}).values()
        both = [row for row in rows if {"A", "B"} <= row.keys()]
        sides = {"B": _only(both, "B", "A"), "A": _only(both, "A", "B")}
        if not any(sides.values()):
            continue
        yield ""
        yield f"{task}: {len(sides['B'])} rows that only B got right, {len(sides['A'])} that only A did, of {len(both)}"
        for side, chosen in sides.items():
            for row in chosen[:SHOWN]:
                said = "; ".join(f"{name} {_short(row[name]['output'])}" for name in ("A", "B"))
                yield f"  only {side}: row {row['A']['id']!r}, target {_short(row['A']['target'])}: {said}"


def _only(rows: Sequence[Mapping[str, Record]], right: str, wrong: str) -> list[Mapping[str, Record]]:
    return [row for row in rows if is_right(row[right]) and is_right(row[wrong]) is False]


def _short(text: Any) -> str:
    said = repr(str(text))
    return said if len(said) <= _SAID else f"{said[:_SAID]}…"
