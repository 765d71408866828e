"""Sentences, shares and marks follow from the numbers: all harm, no gap, a reversed gap, one row, NaN, two studies."""

from __future__ import annotations

import json
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from pkt.callbacks import Guard
from pkt.evaluation.paired import Answers, Interval, differing, mcnemar, sign_flip, supported
from pkt.evaluation.statistics import Estimate, mean, mean_of_all, over_seeds
from pkt.reporting.cells import difference_cell, score_cell
from pkt.reporting.figures import wrapped
from pkt.reporting.gaps import no_gap
from pkt.reporting.headline import headline
from pkt.reporting.page import render
from pkt.reporting.page.charts import gap_charts
from pkt.reporting.page.collect import collect
from pkt.reporting.page.numbers import findings
from pkt.reporting.runs import arms, find_runs, load_runs
from pkt.reporting.study import Study, shares_of, studies
from pkt.reporting.study_tables import study_table
from pkt.sweeps import show_table
from run_folders import leave_run

SAID = r"closes (most|this share) of the gap"


def score(
    task: str, value: float, *, stderr: float = 0.01, n: int = 1000, rises: bool = True
) -> dict[str, Any]:
    metric = "acc" if rises else "word_perplexity"
    return {
        "task": task,
        "metric": metric,
        "value": value,
        "stderr": stderr,
        "n": n,
        "higher_is_better": rises,
    }


def run(
    method: str, value: float, *, teacher: float = 0.9, student: float = 0.4, seed: int = 0, **how: Any
) -> dict:
    """A run of one task `t`, as an older version left it."""
    roles = {"teacher": teacher, "student": student, "transferred": value}
    return {
        "method": method, "model": "m", "benchmark": "b", "split": "test", "seed": seed, "stages": [], "budget": {},
        "settings": {"method": method}, "scores": {role: {"t": score("t", of, **how)} for role, of in roles.items()},
        "folder": f"/nowhere/{method}-{seed}", "store": "store",
    }  # fmt: skip


def study(*runs: dict[str, Any]) -> Study:
    (found,) = studies(runs)
    return found


def cell(found: Study, label: str, column: str) -> str:
    table = study_table(found)
    return next(dict(zip(table.columns, row, strict=True))[column] for row in table.rows if row[0] == label)


@pytest.mark.parametrize("rises", [True, False], ids=["accuracy", "perplexity"])
def test_where_every_arm_harms_none_is_said_to_close_the_gap(rises: bool):
    teacher, values = (0.9, (0.2, 0.1)) if rises else (8.0, (30.0, 40.0))
    start = 0.4 if rises else 20.0
    both = [
        run(name, value, teacher=teacher, student=start, rises=rises)
        for name, value in zip("ab", values, strict=True)
    ]
    said = " ".join(findings(study(*both)))
    assert not re.search(SAID, said)
    assert re.search(
        r"Every arm ends below the untouched student, a the least \(share of the gap: -\d+ %", said
    )
    (alone,) = (study(both[0]),)
    assert "a harms: the student ends below where it began" in " ".join(findings(alone))


@pytest.mark.parametrize("rises", [True, False], ids=["accuracy", "perplexity"])
def test_on_the_way_down_to_a_worse_teacher_there_is_nothing_to_close(rises: bool):
    teacher, start = (0.2, 0.6) if rises else (60.0, 20.0)
    found = study(run("a", teacher, teacher=teacher, student=start, rises=rises))  # as bad as the teacher
    said = " ".join(findings(found))
    assert cell(found, "a", "gap closed") == "–"
    assert "No gap to close (the teacher is worse than the student): t." in said
    assert not re.search(SAID, said)
    one = run("a", teacher, teacher=teacher, student=start, rises=rises)
    table = headline(one["scores"], shares_of(one), "a")
    assert table.rows[-1] == ("gap closed", "–", "–")
    assert "no gap to close (t: the teacher is worse than the student)" in table.title


def test_a_share_inside_the_noise_is_not_called_one():
    said = " ".join(findings(study(run("a", 0.41), run("b", 0.40))))
    assert "No arm closes a share of the gap beyond the noise; the largest is a's: 2 % ± " in said
    assert re.search(SAID, " ".join(findings(study(run("a", 0.8), run("b", 0.40)))))


@pytest.mark.parametrize(
    ("teacher", "student", "stderr", "n", "why"),
    [
        (0.41, 0.40, 0.01, 1000, "within two standard errors"),
        (1.0, 0.0, math.nan, 1, "1 row, too few to tell"),
        (1.0, 0.0, 0.0, 2, "2 rows, too few to tell"),
        (1.0, 0.0, math.inf, 100, "within two standard errors"),
        (math.nan, 0.0, 0.01, 100, "a score is no number"),
        (1.0, -math.inf, 0.01, 100, "a score is no number"),
    ],
)
def test_a_gap_that_nothing_supports_is_none(teacher, student, stderr, n, why):
    found = study(run("a", 0.5, teacher=teacher, student=student, stderr=stderr, n=n))
    assert cell(found, "a", "gap closed") == "–"
    assert f"{why}): t." in " ".join(findings(found))
    assert not re.search(SAID, " ".join(findings(found)))


def test_what_is_no_number_comes_last_and_is_named():
    found = study(run("a", math.nan), run("b", 0.2), run("c", 0.5), run("d", 0.7), run("d", math.nan, seed=1))
    assert [arm.label for arm in found.arms] == ["c", "b", "a", "d"]
    assert cell(found, "a", "t") == cell(found, "d", "t") == "nan"
    assert "No number, and in no mean or comparison: a on t, d on t." in findings(found)
    assert findings(found)[0].startswith("Of these arms, c closes most")
    nothing = study(run("a", math.nan))
    assert not re.search(SAID, " ".join(findings(nothing)))


def test_without_a_gap_the_best_score_is_first_whichever_way_it_goes():
    rising = study(run("a", 0.4, teacher=0.4), run("b", 0.6, teacher=0.4), run("c", math.nan, teacher=0.4))
    assert [arm.label for arm in rising.arms] == ["b", "a", "c"]
    falling = [
        run(name, value, teacher=9.0, student=9.0, rises=False) for name, value in (("a", 9.0), ("b", 7.0))
    ]
    assert [arm.label for arm in study(*falling).arms] == ["b", "a"]


def test_numbers_too_large_for_a_square_give_no_traceback():
    assert mean([1e200, 1.0, 2.0]).stderr == math.inf
    assert math.isnan(mean([math.inf, -math.inf]).value)
    assert (
        over_seeds([Estimate(value=1e200, stderr=1e200), Estimate(value=0.0, stderr=0.0)]).stderr == math.inf
    )
    assert math.isnan(
        mean_of_all([Estimate(value=1.0, stderr=0.1), Estimate(value=math.nan, stderr=0.1)]).value
    )
    assert no_gap(Estimate(value=9, stderr=1), Estimate(value=1, stderr=1), rises=True, rows=None) is None
    found = study(run("a", 1e200, teacher=2.0, student=1e300, stderr=1e250, rises=False))
    assert cell(found, "a", "gap closed") == "–"


def test_errors_that_are_not_known_are_question_marks():
    assert score_cell(Estimate(value=1.0, stderr=math.nan), "acc") == "100.0 ± ?"
    assert score_cell(Estimate(value=math.nan, stderr=0.1), "acc") == "nan"
    two = Interval(value=0.5, low=math.nan, high=math.nan, differing=2)
    assert difference_cell(two, points=True) == "≈ +50.0 (2 rows differ)"


def right(*rows: int) -> Answers:
    value = np.array([rows], dtype=float)
    return Answers(value_KN=value, weight_KN=np.ones_like(value))


@pytest.mark.parametrize(("first", "second"), [((1, 1), (0, 0)), ((1,) * 5, (0,) * 5), ((1,) * 6, (0,) * 6),
                                               ((1,) * 8 + (0,), (0,) * 8 + (1,)), ((1, 0, 1), (1, 0, 1))])  # fmt: skip
def test_a_difference_needs_as_many_rows_as_the_exact_test(first, second):
    parts = differing([right(*first)], [right(*second)])
    outside = supported(Interval(value=0.5, low=0.1, high=0.9), parts)
    assert outside.differing == sum(a != b for a, b in zip(first, second, strict=True))
    if len(parts):
        assert sign_flip(parts) == pytest.approx(mcnemar(first, second))
    assert outside.known == (len(parts) > 0 and mcnemar(first, second) <= 0.05)
    inside = supported(Interval(value=0.0, low=0.0, high=0.0), parts)
    assert inside.known  # that nothing is told apart needs no support


def test_rows_weigh_as_they_do_in_the_score():
    bits, length = np.array([[3.0, 5.0, 1.0]]), np.array([[1.0, 2.0, 3.0]])
    one, other = (
        Answers(value_KN=bits + lift, weight_KN=length) for lift in (0.0, np.array([[0.0, 1.0, 2.0]]))
    )
    parts = differing([one], [other])
    assert parts.tolist() == pytest.approx([-1 / 6, -2 / 6])  # the first row adds nothing


def test_two_rows_tell_no_arms_apart(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("run_folders.ROWS", 2)
    for method, lift in (("sft", 0.0), ("kd", 3.0), ("weak", -3.0)):
        leave_run(tmp_path, method, lift=lift, tasks=("t",))
    (section,) = collect(load_runs([tmp_path / "runs"]), pairs=True).sections
    said = " ".join(section.topics[0].sentences)
    assert "beyond the noise (95" not in said
    assert not re.search(SAID, said)
    assert "(2 rows per task)" in section.table.title


def test_ties_and_the_lead_of_the_best_arm_are_told(tmp_path: Path):
    for method in ("sft", "twin"):
        leave_run(tmp_path, method, lift=0.6)
    runs = load_runs([tmp_path / "runs"])
    for one in runs:  # the very same answers
        one["stages"], one["scores"] = runs[0]["stages"], runs[0]["scores"]
    assert "Its lead is inside the noise over: twin." in findings(study(*runs))[0]
    assert "One seed of each arm" in findings(study(*runs))[-1]


def test_different_models_or_rows_are_different_studies_with_titles_of_their_own():
    made = [run("sft", 0.5 + 0.1 * i) for i in range(4)]
    common = {"teacher": "t" * 16, "student": "abc", "eval.limit": None, "eval tasks custom": "rows 1"}
    changes = [{}, {"student": "other"}, {"eval.limit": 8}, {"eval tasks custom": "rows 2"}]
    for one, change in zip(made, changes, strict=True):
        one |= {"study": common | change, "arm": {"optim.lr": 1}, "names": {"test": "mine.jsonl"}}
    found = studies(made)
    assert [len(each.runs) for each in found] == [1, 1, 1, 1]
    assert len({each.title for each in found}) == 4
    assert "eval.limit 8" in found[2].title
    assert "mine.jsonl" in found[3].title
    report = collect(made)
    assert len({json.loads(line)["study"] for line in render.jsonl(report).splitlines()}) == 4


def test_older_runs_are_told_apart_by_the_models_that_no_run_changes():
    assert (
        len(studies([run("sft", 0.5), run("sft", 0.6, student=0.3, seed=1), run("sft", 0.6, n=8, seed=2)]))
        == 3
    )
    assert len(studies([run("sft", 0.5), run("sft", 0.6, seed=1)])) == 1


def test_a_repeated_run_counts_once_and_one_that_cannot_be_placed_is_named():
    made = [run("sft", 0.5) | {"arm": {"optim.lr": 1}, "study": {"student": "s"}} for _ in range(2)]
    made[1] |= {"folder": "/nowhere/again"}
    found = study(*made)
    assert [len(arm.runs) for arm in found.arms] == [1]
    assert found.passed_over == (
        "/nowhere/again and /nowhere/sft-0 are the same arm with the same seed and count once.",
    )
    alone = made[1] | {
        "scores": {"transferred": made[1]["scores"]["transferred"]}
    }  # eval.models=[transferred]
    assert study(made[0], alone).passed_over == found.passed_over
    older = [
        run("sft", value) | {"stages": [{"stage": "transfer", "key": key}]}
        for value, key in ((0.5, "a"), (0.7, "b"))
    ]
    (told,) = study(*older).passed_over
    assert re.search("is left out: its settings and seed are those of .* its student is another one", told)


def test_two_rates_are_two_arms_and_equal_settings_on_other_rows_too():
    made = [run("sft", 0.5 + 0.1 * i) | {"study": {"student": "s"}} for i in range(3)]
    made[0] |= {"arm": {"optim.lr": 1, "transfer rows train": "aa"}, "settings": {"optim.lr": 1}}
    made[1] |= {"arm": {"optim.lr": 2, "transfer rows train": "aa"}, "settings": {"optim.lr": 2}}
    made[2] |= {"arm": {"optim.lr": 2, "transfer rows train": "bb"}, "settings": {"optim.lr": 2}}
    labels = [arm.label for arm in arms(made)]
    assert labels[0] == "sft (optim.lr=1)"
    assert [label.partition("transfer rows train ")[2][:2] for label in labels[1:]] == ["aa", "bb"]


def test_no_arm_takes_the_name_of_a_model():
    assert [arm.label for arm in arms([run("teacher", 0.5), run("student", 0.6)])] == [
        "teacher #2",
        "student #2",
    ]


def test_runs_without_scores_are_named(tmp_path: Path):
    leave_run(tmp_path, "sft", lift=0.5)
    for name, verb in (("failed", "run"), ("analysis", "analyze")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.yaml").write_text(f"verb: {verb}\n", encoding="utf-8")
    (tmp_path / "runs" / "strange").mkdir()
    (tmp_path / "runs" / "strange" / "scores.json").write_text("[]", encoding="utf-8")
    found = find_runs([tmp_path / "runs"])
    assert len(found.runs) == 1
    assert [
        Path(told.split(" is left out")[0].split(" cannot be read")[0]).name for told in found.left_out
    ] == [
        "scores.json",
        "failed",
    ]
    report = collect(found.runs, left_out=found.left_out)
    for text in (render.html(report), render.markdown(report), render.latex(report)):
        assert "failed" in text


def test_a_task_that_only_some_models_were_scored_on_breaks_nothing():
    one = run("a", 0.5)
    one["scores"]["transferred"]["more"] = score("more", 0.5)
    found = study(one)
    assert cell(found, "teacher", "more") == "nan"
    assert cell(found, "a", "gap closed") == "20 % ± 3"
    assert "No gap to close (a score is no number): more." in findings(found)
    table = headline(one["scores"], shares_of(one), "a")
    assert {len(row) for row in table.rows} == {len(table.columns)}


@pytest.mark.parametrize("width", [8, 26])
def test_labels_are_wrapped_and_never_cut(width: int):
    label = "mylab/a_method_with_a_long_name (objective.terms.layer.positions answer, x" + "y" * 40 + ")"
    lines = wrapped(label, width).split("\n")
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == label.replace(" ", "")


def test_drawings_say_whose_numbers_they_show(tmp_path: Path):
    name = "a_method_with_a_name_that_is_longer_than_any_label"
    leave_run(tmp_path, name, lift=0.5)
    leave_run(tmp_path, "sft", lift=0.7)
    (section,) = collect(load_runs([tmp_path / "runs"])).sections
    drawings = [drawing for topic in section.topics for drawing in topic.drawings]
    assert len(drawings) > 4
    assert all(drawing.about.endswith("nano on nano") for drawing in drawings)
    for drawing in drawings:
        shown = [text.get_text() for text in drawing.figure.findobj(Text)]
        told = " ".join([drawing.heading, *shown]).replace("\n", "")
        assert "sft" in told or name in told, drawing.name
        assert "…" not in told
    assert name in [text.get_text().replace("\n", "") for text in drawings[0].figure.axes[0].texts]


def test_a_drawing_of_the_only_arm_names_it(tmp_path: Path):
    leave_run(tmp_path, "kd", lift=0.5)
    (section,) = collect(load_runs([tmp_path / "runs"])).sections
    drawings = [drawing for topic in section.topics for drawing in topic.drawings]
    assert len(drawings) > 3
    assert {drawing.about for drawing in drawings} == {"kd: nano on nano"}


def test_many_arms_with_long_labels_fit_on_a_screen(tmp_path: Path):
    for place in range(15):
        settings = {"optim.lr": place, "method.update.rank": place % 2}
        leave_run(tmp_path, "semalign_joint", lift=0.05 * place, seed=place, settings=settings)
    found = study(*load_runs([tmp_path / "runs"]))
    (drawing, *_) = gap_charts(found)
    axes = drawing.figure.axes[0]
    assert drawing.figure.get_size_inches()[1] < 7
    shown = {text.get_text().replace("\n", " ") for text in axes.texts}
    assert {arm.label for arm in found.arms} <= shown
    drawing.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text() not in ("student", "teacher")]
    width = drawing.figure.bbox.width
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(boxes))


def test_a_sweep_over_two_students_ends_in_two_tables_and_loses_no_number(
    tmp_path: Path, monkeypatch, capsys
):
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "pkt.tracking.sweep_run.log_sweep", lambda _, tables, numbers: told.update(t=tables, n=numbers)
    )
    for seed, student in enumerate(("one", "two")):
        made = {"study": {"teacher": "t", "student": student}, "arm": {"optim.lr": 1}}
        job = leave_run(tmp_path, "sft", lift=0.5 + 0.2 * seed, seed=seed, **made)
        (job / "config.yaml").write_text("verb: run\n", encoding="utf-8")
    failed = job.parent / "failed"
    failed.mkdir()
    (failed / "config.yaml").write_text("verb: run\n", encoding="utf-8")
    (job / ".hydra").mkdir()
    shutil.copy(job / "config.yaml", job / ".hydra" / "config.yaml")  # Hydra's own
    refused = job.parent / "refused"
    shutil.copytree(job / ".hydra", refused / ".hydra")
    monkeypatch.setattr(Guard, "sweep", tmp_path / "runs")
    show_table()
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if "left out" in line] == [
        f"{place} is left out: it has no scores (the run was refused, failed, was stopped, or is not done)."
        for place in (failed, refused)
    ]
    assert "student one" in shown.out
    assert "student two" in shown.out
    assert len({table.title for table in told["t"]}) == 2
    scores = {name: value for name, value in told["n"].items() if name.endswith("/sft/mean")}
    assert len(set(scores.values())) == 2
