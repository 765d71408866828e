"""Quality against cost, and validation over steps: one picture for all arms, with the numbers that tables have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pkt.reporting.page.collect import collect
from pkt.reporting.page.tradeoffs import cost_charts, validation_chart
from pkt.reporting.runs import load_runs
from pkt.reporting.study import Study
from run_folders import leave_run


@pytest.fixture
def study(tmp_path: Path) -> Study:
    budgets = {"sft": (1_000, 2.0), "kd": (20_000, 30.0)}
    for name, (tokens, seconds) in budgets.items():
        for seed in (0, 1):
            spent = {"student_forward_tokens": tokens + seed, "seconds": seconds}
            lift = 0.4 + 0.3 * (name == "kd")
            folder = leave_run(tmp_path, name, lift=lift, seed=seed, budget=spent)
            with (folder / "metrics.jsonl").open("a") as file:
                for step in (20, 40):
                    values = {"transfer/validation/cross_entropy": 10.0 / step}
                    line = {"kind": "metrics", "time": step, "step": step, "values": values}
                    file.write(json.dumps(line) + "\n")
    return Study.of(load_runs([tmp_path / "runs"]))


def test_scores_over_costs_are_those_of_the_tables(study):
    tokens, seconds = cost_charts(study)
    assert (tokens.name, seconds.name) == ("cost_student_forward_tokens", "cost_seconds")
    (axes,) = tokens.figure.axes
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    found = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in marks}
    for arm in study.arms:
        cost, score = found[arm.label]
        assert cost == pytest.approx(1.0005 if arm.label == "sft" else 20.0005)
        assert score == pytest.approx(100 * study.score(arm, study.compared).value)
        assert f"{arm.label}: {score:.3g} at {cost:.3g}" in tokens.alt
    assert axes.get_xscale() == "log"
    assert seconds.figure.axes[0].get_xscale() == "log"


def test_validations_of_all_arms_are_in_one_picture(study):
    drawn = validation_chart(study.arms)
    assert {line.get_label() for line in drawn.figure.axes[0].lines} == {arm.label for arm in study.arms}
    assert validation_chart(study.arms[:1]) is None


def test_a_page_has_them_and_a_single_arm_has_not(study):
    def names(report) -> set[str]:
        topics = (topic for section in report.sections for topic in section.topics)
        return {drawing.name for topic in topics for drawing in topic.drawings}

    assert {"cost_seconds", "validation"} <= names(collect(study.runs))
    assert not {"cost_seconds", "validation"} & names(collect(study.runs[:1]))


def test_arms_that_are_left_out_are_told(study, monkeypatch):
    from pkt.reporting.page import tradeoffs

    monkeypatch.setattr(tradeoffs, "MOST", 1)
    assert tradeoffs.cost_charts(study) == ()  # one point is no comparison
    monkeypatch.setattr(tradeoffs, "MOST", 2)
    assert "of" not in cost_charts(study)[0].title.partition("tokens")[2]
    three = Study.of(
        [*study.runs, {**study.runs[0], "method": "pissa", "arm": {"by": "other"}, "settings": {}}]
    )
    assert "(the best 2 of 3 arms)" in cost_charts(three)[0].title
