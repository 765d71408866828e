"""Test rows with what student, transferred student and teacher made of them, chosen by a rule and not by hand.

The rule, per task: the first rows in the order of the test set whose mark changed, half of them gained and half lost
(one side fills up what the other lacks), then the first rows that did not change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pkt.reporting.answers import read_records
from pkt.reporting.page.model import Example, Output, Part
from pkt.reporting.runs import Run

COUNT = 4  # rows per task
_LONGEST = 600  # letters of a prompt or an output that are shown
_RULE = (
    "Chosen by rule: per task the first {count} rows of the test set whose mark changed, gained and lost in turn, "
    "then the first that did not change."
)
_UNSHOWN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]"
)  # no letters: a page cannot hold them


def example_part(run: Run, label: str) -> Part:
    """Return the examples of a run; empty where its records are not there or keep no outputs.

    Args:
        run: whose answers are shown.
        label: of its arm.
    """
    before, after = read_records(run, "student"), read_records(run, "transferred")
    teacher = read_records(run, "teacher")
    sentences, examples = [], []
    for task, records in after.items():
        rows = _rows(before.get(task, ()), records, teacher.get(task, ()))
        if not any(record["output"] for triple in rows for record in triple if record):
            continue  # scored by likelihood: there is no text to show
        sentences.append(_counts(task, rows))
        examples += [_example(task, triple) for triple in _chosen(rows)]
    if not examples:
        return Part(name="examples", title="Examples")
    first = f"Outputs of {label}, seed {run['seed']}. {_RULE.format(count=COUNT)}"
    return Part(
        name="examples",
        title="Examples",
        sentences=(first, *sentences),
        examples=tuple(examples),
        folded=True,
    )


Triple = tuple[Mapping[str, Any] | None, Mapping[str, Any], Mapping[str, Any] | None]


def _rows(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    teacher: Sequence[Mapping[str, Any]],
) -> list[Triple]:
    """Return each row's records of student, transferred student and teacher."""
    was = {str(record["id"]): record for record in before}
    wanted = {str(record["id"]): record for record in teacher}
    return [(was.get(str(r["id"])), r, wanted.get(str(r["id"]))) for r in after]


def _change(triple: Triple) -> str:
    before, after, _ = triple
    if before is None or before.get("correct") is None or after.get("correct") is None:
        return "changed" if before is not None and before["output"] != after["output"] else "same"
    if _right(before) == _right(after):
        return "same"
    return "gained" if _right(after) else "lost"


def _right(record: Mapping[str, Any]) -> bool | None:
    """Return whether a row counts as right: of several drawn answers half or more; None where there is no mark."""
    mark = record.get("correct")
    return None if mark is None else float(mark) >= 0.5


def _chosen(rows: Sequence[Triple]) -> list[Triple]:
    of = {
        change: [r for r in rows if _change(r) == change] for change in ("gained", "lost", "changed", "same")
    }
    turns = zip_longest(of["gained"], of["lost"])
    changed = [triple for turn in turns for triple in turn if triple is not None]
    return [*changed, *of["changed"], *of["same"]][:COUNT]


def _counts(task: str, rows: Sequence[Triple]) -> str:
    changes = [_change(triple) for triple in rows]
    told = ", ".join(
        f"{changes.count(change)} {change}" for change in ("gained", "lost", "changed") if change in changes
    )
    return f"{task}: {told or 'none changed'}, of {len(rows)} rows."


def _example(task: str, triple: Triple) -> Example:
    before, after, teacher = triple
    shown = (("student before", before), ("student after", after), ("teacher", teacher))
    return Example(
        task=task,
        row=str(after["id"]),
        change=_change(triple),
        prompt=_shortened(after["prompt"], tail=True),
        target=_shortened(after["target"]),
        outputs=tuple(
            Output(
                who=who,
                text=_shortened(record["output"]),
                right=_right(record),
            )
            for who, record in shown
            if record is not None
        ),
    )


def _shortened(text: Any, *, tail: bool = False) -> str:
    """Return the start of a long text, or its end (of a prompt, that is where the question is)."""
    shown = _UNSHOWN.sub("\ufffd", str(text))
    if len(shown) <= _LONGEST:
        return shown
    return f"[…] {shown[-_LONGEST:]}" if tail else f"{shown[:_LONGEST]} […]"
