"""`pkt diff RUN RUN`: what sets two runs apart: settings, results of stages, scores on the same rows, answers.

    two run folders ──> settings that differ, and why each stage's result is another one (their manifests)
                    ──> scores, second minus first, paired row by row; rows that only one of them got right

A plain command: nothing is composed, and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt import console
from pkt.durable import read_json
from pkt.errors import RequestError
from pkt.evaluation.paired import Interval, difference, differing, resample, supported
from pkt.manifest import MANIFEST
from pkt.planner import changes
from pkt.reporting.answers import Answered, artifact_folder, read_answers, read_records, stack
from pkt.reporting.cells import SHARES, difference_cell, score_cell
from pkt.reporting.examples import Record, is_right, records_by_row
from pkt.reporting.gaps import estimate_of
from pkt.reporting.overrides import overrides
from pkt.reporting.runs import Run, load_runs

SHOWN = 3  # rows of a task that only one of the two got right
_SAID = 60  # letters of an answer
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
    _table("settings", ("key", "A", "B"), _settings(first, second))
    _table("results of stages", ("stage", "A", "B", "why"), _stages(first, second))
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


def _table(title: str, columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> None:
    found = list(rows)
    if found:
        console.table(title, columns, found)
    else:
        console.say(f"{title}: none differ")


def _settings(first: Run, second: Run) -> Iterator[tuple[str, str, str]]:
    sides = [
        {"benchmark": run["benchmark"], "eval.split": run["split"], "seed": str(run["seed"])} | overrides(run)
        for run in (first, second)
    ]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        values = [side.get(key, "(not read, or at its default)") for side in sides]
        if values[0] != values[1]:
            yield (key, *values)


def _stages(first: Run, second: Run) -> Iterator[tuple[str, str, str, str]]:
    keys = [{str(stage["stage"]): str(stage["key"]) for stage in run["stages"]} for run in (first, second)]
    for name in dict.fromkeys([*keys[0], *keys[1]]):
        own = [side.get(name, "–") for side in keys]
        if own[0] != own[1]:
            yield name, own[0], own[1], "only one run has it" if "–" in own else _why(first, second, name)


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
    answers = [read_answers(run, ROLE) for run in (first, second)]
    for task in dict.fromkeys([*first["scores"][ROLE], *second["scores"][ROLE]]):
        scores = [run["scores"][ROLE].get(task) for run in (first, second)]
        cells = [_cell(score) for score in scores]
        gain = _gain(answers[0].get(task), answers[1].get(task))
        points = all(score and score["metric"] in SHARES for score in scores)
        told = "not the same rows" if gain is None else difference_cell(gain, points=points)
        yield task, cells[0], cells[1], told if None not in scores else "–"


def _cell(score: Mapping[str, Any] | None) -> str:
    return "–" if score is None else score_cell(estimate_of(score), str(score["metric"]))


def _gain(first: Answered | None, second: Answered | None) -> Interval | None:
    """Return second minus first with its interval; None where they did not answer the same rows."""
    if first is None or second is None:
        return None
    stacked = [stack([{"": own}], {"": first}) for own in (second, first)]
    if stacked[0] is None or stacked[1] is None:
        return None
    found = difference(resample(stacked[0]), resample(stacked[1]))
    return supported(found, differing(stacked[0], stacked[1]))


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
