"""The content of a report; its page, Markdown, LaTeX and JSONL are all made from this, so that they agree.

Report -> Section (one study) -> Topic (a heading with sentences, tables, drawings, examples)
                                                 -> Number (an arm's score of a task, for JSONL)
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.reporting.figures import Drawing
from pkt.reporting.study import Study
from pkt.table import Table


@dataclass(frozen=True, kw_only=True)
class Number:
    """One line of `report.jsonl`: an arm's score of a task, or its mean over them (`task` is then ``mean``).

    Attributes:
        study: which section it belongs to: its title.
        pair, benchmark: of that section.
        role: ``teacher``, ``student`` or ``transferred``.
        arm: as tables call it.
        task, metric: of the score.
        value, stderr: mean over seeds; its error covers seeds and test rows.
        seeds: how many runs.
        gap_closed: share of the gap with the ends of its 95 % interval, or with a standard error where the answers
            behind the scores are not there.
        against: the arm that the difference is to.
        difference: on the same rows, with the ends of its 95 % interval; in the score's own unit.
        inside_noise: whether that interval holds 0.
    """

    study: str
    pair: str
    benchmark: str
    role: str
    arm: str
    task: str
    metric: str
    value: float
    stderr: float
    seeds: int
    gap_closed: float | None = None
    gap_closed_low: float | None = None
    gap_closed_high: float | None = None
    gap_closed_stderr: float | None = None
    against: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    inside_noise: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """One model's answer to a test row; `right` is None where the task does not grade rows one by one."""

    who: str
    text: str
    right: bool | None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One test row with the outputs of the models, side by side."""

    task: str
    row: str
    change: str
    prompt: str
    target: str
    outputs: tuple[Output, ...]


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """A line for a shell, which a reader copies; `title` says what it does."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One heading of a section, and what stands below it.

    Attributes:
        name: of its anchor, unique in a section.
        title: its heading.
        sentences: in plain words.
        snippets, tables, drawings, examples: what it shows, in this order of a page.
        legend: how the drawings are to be read.
        folded: shown only when asked for.
        kept: shown in the Markdown and the LaTeX too.
    """

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    snippets: tuple[Snippet, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    examples: tuple[Example, ...] = ()
    legend: str = ""
    folded: bool = False
    kept: bool = False

    def __bool__(self) -> bool:
        return any((self.sentences, self.snippets, self.tables, self.drawings, self.examples))


@dataclass(frozen=True, kw_only=True)
class Section:
    """What is known of one study: runs of equal models, scored on equal rows.

    Attributes:
        title: the heading.
        table: scores and budget in one, as a sweep prints them.
        topics: what is shown, in order.
        numbers: the scores behind the tables.
        study: the runs behind it, where there are any.
    """

    title: str
    table: Table
    topics: tuple[Topic, ...]
    numbers: tuple[Number, ...] = ()
    study: Study | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One page.

    Attributes:
        title: of the page.
        lead: what was read, in one sentence.
        sections: one per study.
        left_out: what was found and is not shown, a sentence each with the reason.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    left_out: tuple[str, ...] = ()
