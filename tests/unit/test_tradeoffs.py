"""Quality against cost, and validation over steps: one picture for all arms, with the numbers that tables have."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest

from pkt.reporting.answers import artifact_folder
from pkt.reporting.page.collect import collect
from pkt.reporting.page.curves import curve_chart, last_validations, loss_curves
from pkt.reporting.page.tradeoffs import cost_charts, validation_charts
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
    low, high = axes.get_ylim()
    assert low < 100 * study.score(study.fixed[1], study.compared).value < high  # the student
    assert axes.get_xscale() == "log"
    assert seconds.figure.axes[0].get_xscale() == "log"


@pytest.mark.parametrize(("teacher", "edge"), [(0.99, "teacher 99 ↑"), (0.01, "teacher 1 ↓")])
def test_a_teacher_far_from_all_arms_does_not_press_them_together(study, teacher, edge):
    runs = copy.deepcopy(study.runs)
    values = {"teacher": teacher, "student": 0.5}
    for run in runs:
        for role, tasks in run["scores"].items():
            for score in tasks.values():
                lift = 0.01 if run["method"] == "kd" else 0.0
                score |= {"value": values.get(role, 0.51 + lift), "stderr": 0.005}
    axes = cost_charts(Study.of(runs))[0].figure.axes[0]
    low, high = axes.get_ylim()
    assert high - low < 10  # points
    assert low < 50 < 52 < high
    assert edge in [text.get_text() for text in axes.texts]


def test_validations_of_all_arms_are_in_one_picture(study):
    (drawn,) = validation_charts(study.arms)
    assert {line.get_label() for line in drawn.figure.axes[0].lines} == {arm.label for arm in study.arms}
    (alone,) = validation_charts(study.arms[:1])
    assert [line.get_label() for line in alone.figure.axes[0].lines] == [study.arms[0].label]


def test_a_training_that_was_reused_has_the_curves_of_the_result_that_it_took(study):
    """Whatever the run's own folder says: it may hold the last steps alone, of a training that was resumed."""
    (arm, _), told = study.arms, {}
    for step in (20, 40, 60):
        told[step] = {"loss": 1.0, "validation/label_accuracy": 0.01 * step, "validation/row_accuracy": 0.5}
        told[step]["validation/cross_entropy"] = math.nan if step == 40 else 3.0
    steps = artifact_folder(arm.first, "transfer") / "steps.json"
    steps.write_text(json.dumps(told), encoding="utf-8")
    metrics = Path(arm.first["folder"]) / "metrics.jsonl"
    metrics.unlink()
    assert loss_curves(arm.first) == {
        "loss": [(20, 1.0), (40, 1.0), (60, 1.0)],
        "validation cross_entropy": [(20, 3.0), (60, 3.0)],
    }
    charts = {chart.name: chart.figure.axes[0].lines[0] for chart in validation_charts([arm])}
    assert list(charts["validation"].get_xdata()) == [20, 60]
    assert list(charts["validation_label_accuracy"].get_ydata()) == [0.2, 0.4, 0.6]
    (row,) = last_validations([arm]).rows
    assert row == (arm.label, "60", "0.6", "0.5", "3")
    topics = {topic.name: topic for topic in collect([arm.first]).sections[0].topics}
    assert {"validation", "validation_label_accuracy", "loss_0"} == {
        drawing.name for drawing in topics["losses"].drawings
    }
    steps.unlink()
    assert loss_curves(arm.first) == {}


def test_a_page_has_them_and_a_single_arm_has_not(study):
    def names(report) -> set[str]:
        topics = (topic for section in report.sections for topic in section.topics)
        return {drawing.name for topic in topics for drawing in topic.drawings}

    assert {"cost_seconds", "validation"} <= names(collect(study.runs))
    assert "cost_seconds" not in names(collect(study.runs[:1]))


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


def test_every_arm_is_named_in_full_and_leaves_room_for_the_axes(study):
    runs = []
    for place in range(12):
        run = copy.deepcopy(study.runs[0])
        run["settings"] = {
            "method": "sft",
            "method.a_setting_with_a_name_that_goes_on_and_on": f"value number {place}",
        }
        runs.append(run | {"arm": {"place": place}})
    many = Study.of(runs)
    for drawing in cost_charts(many):
        drawing.figure.canvas.draw()
        (axes,) = drawing.figure.axes
        assert axes.get_window_extent().height / drawing.figure.dpi > 1.5
        (legend,) = drawing.figure.legends
        assert legend.get_window_extent().y0 >= 0
        shown = [text.get_text().replace("\n", "").replace(" ", "") for text in legend.get_texts()]
        assert shown == [arm.label.replace(" ", "") for arm in many.arms]


def test_curves_of_many_terms_keep_their_axes():
    terms = {f"loss_a_term_with_a_long_name_{place}": [(1.0, 2.0), (2.0, 1.0)] for place in range(8)}
    figure = curve_chart("Losses", terms, "loss_0").figure
    figure.canvas.draw()
    assert figure.axes[0].get_window_extent().height / figure.dpi > 1.5
