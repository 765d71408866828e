"""Test rows with what student, transferred student and teacher made of them, chosen by a rule and not by hand.

The rule, per task: the first rows in the order of the test set whose mark changed, half of them gained and half lost
(one side fills up what the other lacks), then the first rows that did not change.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pkt.reporting.answers import read_records
from pkt.reporting.examples import WHO, Record, is_right, records_by_row
from pkt.reporting.page.report import Example, Output, Topic
from pkt.reporting.runs import Run

COUNT = 4  # rows per task
_LONGEST = 600  # letters of a prompt or an output that are shown
_RULE = (
    "Chosen by rule: per task the first {count} rows of the test set whose mark changed, gained and lost in turn, "
    "then the first that did not change."
)
_UNSHOWN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]"
)  # characters that HTML cannot hold
Row = Mapping[str, Record]  # role -> its record of one row, of the roles that have one


def example_topic(run: Run, label: str) -> Topic:
    """Return the examples of a run; empty where its records are not there or keep no outputs.

    Args:
        run: whose answers are shown.
        label: of its arm.
    """
    by_role = {role: read_records(run, role) for role in WHO}
    sentences, examples = [], []
    for task in by_role["transferred"]:
        every = records_by_row({role: records.get(task, []) for role, records in by_role.items()})
        rows = [row for row in every.values() if "transferred" in row]
        if not any(record["output"] for row in rows for record in row.values()):
            continue  # scored by likelihood: there is no text to show
        sentences.append(_counts(task, rows))
        examples += [_example(task, row) for row in _chosen(rows)]
    if examples:
        sentences.insert(0, f"Outputs of {label}, seed {run['seed']}. {_RULE.format(count=COUNT)}")
    return Topic(
        name="examples",
        title="Examples",
        sentences=tuple(sentences),
        examples=tuple(examples),
        folded=True,
    )


def _change(row: Row) -> str:
    before, after = row.get("student"), row["transferred"]
    if before is None or before.get("correct") is None or after.get("correct") is None:
        return "changed" if before is not None and before["output"] != after["output"] else "same"
    if is_right(before) == is_right(after):
        return "same"
    return "gained" if is_right(after) else "lost"


def _chosen(rows: Sequence[Row]) -> list[Row]:
    changes = ("gained", "lost", "changed", "same")
    of = {change: [row for row in rows if _change(row) == change] for change in changes}
    turns = zip_longest(of["gained"], of["lost"])
    changed = [row for turn in turns for row in turn if row is not None]
    return [*changed, *of["changed"], *of["same"]][:COUNT]


def _counts(task: str, rows: Sequence[Row]) -> str:
    changes = Counter(map(_change, rows))
    counts = [f"{changes[change]} {change}" for change in ("gained", "lost", "changed") if changes[change]]
    return f"{task}: {', '.join(counts) or 'none changed'}, of {len(rows)} rows."


def _example(task: str, row: Row) -> Example:
    after = row["transferred"]
    return Example(
        task=task,
        row=str(after["id"]),
        change=_change(row),
        prompt=_shortened(after["prompt"], tail=True),
        target=_shortened(after["target"]),
        outputs=tuple(
            Output(who=who, text=_shortened(row[role]["output"]), right=is_right(row[role]))
            for role, who in WHO.items()
            if role in row
        ),
    )


def _shortened(text: Any, *, tail: bool = False) -> str:
    """Return the start of a long text, or its end (of a prompt, that is where the question is)."""
    shown = _UNSHOWN.sub("\ufffd", str(text))
    if len(shown) <= _LONGEST:
        return shown
    return f"[…] {shown[-_LONGEST:]}" if tail else f"{shown[:_LONGEST]} […]"
