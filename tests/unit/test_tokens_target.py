"""The comparison of teachers with and without the student's tokenizer: its jobs, and the share of the gap."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from paper import groups
from paper.meeting import SHARES, meeting
from paper.tokens import STRANGER, tokens
from pkt.errors import RequestError


def test_both_teachers_have_the_same_cells_and_settings():
    plan = tokens("nano", [0, 1])
    same, other = plan.groups
    assert (same.pair, other.pair) == ("nano", STRANGER)
    assert same.cells == other.cells
    words = [[word for word in group.words(same.cells[0], 0) if "model" not in word] for group in plan.groups]
    assert words[0] == words[1]
    assert len(plan.jobs) == 2 * 2 * len(same.cells)
    with pytest.raises(RequestError, match="leave --pair out"):
        tokens(STRANGER, [0])


def test_every_cell_is_of_the_teacher_with_another_tokenizer_and_shared_ones_run_once():
    plan = meeting("nano", [0, 1])
    *two, one, last = plan.groups  # other forms beside what they give with one tokenizer
    assert {group.pair for group in (*two, last)} == {STRANGER}
    assert (one.pair, one.cells) == ("nano", last.cells)
    assert len({job.words for job in plan.jobs}) == len(plan.jobs) == len({job.name for job in plan.jobs})
    assert len(plan.jobs) < 2 * sum(len(group.cells) for group in plan.groups)
    shares = {word for group in plan.groups for cell in group.cells for word in cell.words if "share" in word}
    assert shares == {f"meeting.share={share / 100:g}" for share in SHARES if share < 100}
    with pytest.raises(RequestError, match="leave --pair out"):
        meeting(STRANGER, [0])


def test_the_share_is_that_of_gaps_closed_and_a_dash_where_there_is_next_to_none(monkeypatch):
    scores = {"student": 0.4, "teacher": 0.9, "good": 0.6, "bad": 0.41}

    def study(title: str, factor: float) -> SimpleNamespace:
        arms = [SimpleNamespace(label=name, role="transferred") for name in ("good", "bad")]
        ends = [SimpleNamespace(label=name, role=name) for name in ("student", "teacher")]

        def score(arm, _tasks):
            own = scores[arm.label]
            moved = own if arm.role != "transferred" else 0.4 + factor * (own - 0.4)
            return SimpleNamespace(value=moved)

        return SimpleNamespace(title=title, as_read=arms, fixed=ends, compared=(), score=score)

    monkeypatch.setattr(
        groups,
        "_side_by_side",
        lambda _: groups.Table(title="t", columns=("",), rows=(("good",), ("bad",), ("student",))),
    )
    topic = groups.tokens_topic({"a": study("one", 1.0), "b": study("two", 0.75)})
    assert topic.tables[0].rows == (("good", "75 %"), ("bad", groups.NONE), ("student", groups.NONE))
