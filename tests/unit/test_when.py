"""Where transfer pays: which requests are compared with which, and tables and pictures from runs that are made up."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from paper.groups import axis_topics, grouped_report, studies_of
from paper.lines import lines
from paper.meeting import SHARES, meeting
from paper.plans import Plan, with_words
from paper.results import result_of, write_results
from paper.settings import COUNT, finals, settings
from paper.targets import ablations, default_seeds
from paper.when import CUT_STEPS, LABELLED, STEPS, WITH_PROMPTS, cuts, labels, situations
from pkt.errors import RequestError
from pkt.reporting.svg import inline
from reproduce import main
from run_folders import leave_run

ROOT = Path(__file__).parents[2]
Lift = Callable[[str, str], float]  # of a group's title and a cell's name


def leave(plan: Plan, outputs: Path, lift: Lift) -> list[Path]:
    """Leave what the jobs of a plan would, each student as far on its way to the teacher as `lift` says."""
    found = {}
    for group in plan.groups:
        for cell in group.cells:
            for seed in plan.seeds:
                words = group.words(cell, seed)
                if words not in found:
                    own = f"{group.title} {cell.name}".replace("/", "-")
                    folder = leave_run(
                        outputs, own, lift=lift(group.title, cell.name), seed=seed, store="../../store"
                    )
                    found[words] = folder.rename(outputs / f"job{len(found)}")
    moved = []
    for job in plan.jobs:
        moved.append(outputs / "jobs" / job.name)
        moved[-1].parent.mkdir(exist_ok=True)
        shutil.move(found[job.words], moved[-1])
    return moved


def values(table, label: str) -> dict[str, str]:
    row = next(row for row in table.rows if row[0] == label)
    return dict(zip(table.columns, row, strict=True))


def scored(folder: Path) -> float:
    scores = json.loads((folder / "scores.json").read_text())["scores"]["transferred"]
    return sum(score["value"] for score in scores.values()) / len(scores)


def test_labels_and_prompts_are_compared_at_equal_steps_and_labels():
    plan = labels("nano", [0, 1])
    assert len({job.name for job in plan.jobs}) == len(plan.jobs) == len(LABELLED) * (4 + 4) * 2
    for group in plan.groups:
        alone = [cell for cell in group.cells if not cell.form]
        taught = [cell for cell in group.cells if cell.form == WITH_PROMPTS]
        assert group.cells[0].name == "sft"
        assert "seqkd" not in {cell.method for cell in alone}
        assert "sft" not in {cell.method for cell in taught}
        assert all(f"optim.steps={STEPS}" in cell.words for cell in group.cells)
        assert all(("data.unlabelled=train" in cell.words) == (cell in taught) for cell in group.cells)
    assert [group.at for group in plan.groups] == [100, 300, 1000]


def test_cut_students_are_trained_by_all_at_equal_steps():
    plan = cuts("nano", [0])
    assert [(group.pair, group.at) for group in plan.groups] == [
        (pair, steps) for pair in ("nano-cut", "nano-narrow") for steps in CUT_STEPS
    ]
    real = cuts("smollm2-135m-to-half", [0])
    assert {group.at for group in real.groups} == {200}
    assert [cell.name for cell in real.groups[0].cells][-2:] == ["semalign_joint", "semalign_cut"]


def test_situations_have_their_own_baselines_and_share_requests():
    plan = situations("nano", [0])
    assert len({job.words for job in plan.jobs}) == len(plan.jobs) < sum(len(g.cells) for g in plan.groups)
    for group in plan.groups:
        assert {"sft", "kd", "seqkd", "hidden_kd"} <= {cell.method for cell in group.cells}
        forms = [
            cell.method for cell in group.cells if cell.method.startswith("semalign") and not cell.control
        ]
        assert forms == [group.form.method]
        controls = [cell for cell in group.cells if cell.control]
        assert len(controls) >= 2
        assert {cell.method for cell in controls} <= {group.form.method, "semalign_joint"}
    few = labels("nano", [0]).groups[1]
    shared = {few.words(cell, 0) for cell in few.cells} & {job.words for job in plan.jobs}
    assert len(shared) == 1 + 4  # sft with the labels alone, four methods with prompts


def test_random_pairs_are_as_many_as_the_layers_of_the_student():
    drawn = [job.words for job in ablations("nano-peer", [0]).jobs if "mapping=random" in job.words]
    assert ["mapping.count=null" in words for words in drawn] == [True]


def test_every_method_is_tried_as_often_and_on_validation_rows():
    trials = settings("nano", [0])
    assert {len(group.cells) for group in trials.groups} == {COUNT}
    last = finals("nano-peer", [0])
    assert [group.at for group in last.groups] == [500, 1000]
    assert len({tuple(cell.method for cell in group.cells) for group in last.groups}) == 1
    for job in (*trials.jobs, *last.jobs):
        assert "eval.split=validation" in job.words
    with pytest.raises(RequestError, match="tried on nano's rows"):
        finals("smollm2-135m-to-half", [0])


def test_seeds_unless_asked_for():
    assert default_seeds("labels", "nano-peer") == default_seeds("situations", "nano") == "0,1,2,3,4"
    assert default_seeds("cuts", "smollm2-135m-to-half") == default_seeds("table1", "nano") == "0,1,2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["labels", "--pair", "smollm2-135m-to-pruned"], "four tasks of nano.*take nano"),
        (["cuts", "--pair", "nano-code"], "that of nano-code is not; take nano"),
        (["situations", "--pair", "nano-code"], "leave --pair out"),
    ],
)
def test_pairs_that_a_target_is_not_about_are_refused(words: list[str], message: str, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(message, said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table1", "seed=7"], "got 'seed=7', and table1 itself decides seed.*--seeds"),
        (["labels", "--seeds", "0", "seed=7"], "labels itself decides seed"),
        (["labels", "model=nano-code"], "itself decides model.*--pair"),
        (["labels", "method=sft"], "itself decides method"),
        (["situations", "semantics=cosine"], "itself decides semantics"),
        (["labels", "+data.unlabelled=train"], "itself decides data.unlabelled"),
        (["ablations", "method.targets=own"], "itself decides method.targets"),
    ],
)
def test_words_that_would_make_different_arms_alike_are_refused(words: list[str], message: str, capsys):
    assert main([*words, "--print"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(message, said)


def test_amounts_that_words_have_changed_stand_above_the_tables(capsys):
    words = ["eval.limit=4", "optim.steps=2", "data.sizes.labelled=3"]
    plan = with_words(labels("nano", [0]), words)
    assert plan.lead.endswith(
        "every request had optim.steps=2 data.sizes.labelled=3, whatever titles and columns say."
    )
    assert with_words(labels("nano", [0]), ["eval.limit=4"]) == labels("nano", [0])
    assert main(["labels", "--print", "--seeds", "0", *words]) == 0
    assert all(line.endswith(" ".join(words)) for line in capsys.readouterr().out.splitlines())


@pytest.fixture(scope="module")
def label_runs(tmp_path_factory) -> tuple[Plan, list[Path]]:
    """Labels are worth 0.1 per step of their number; prompts lift all methods by 0.5, and kd alone is sft."""

    def lift(title: str, name: str) -> float:
        base = 0.1 + 0.1 * ["100 labels", "300 labels", "1,000 labels"].index(title)
        return base + (0.5 if WITH_PROMPTS in name else 0.0)

    plan = labels("nano", [0, 1])
    return plan, leave(plan, tmp_path_factory.mktemp("labels"), lift)


def test_each_arm_is_compared_with_sft_at_the_same_number_of_labels(label_runs):
    plan, folders = label_runs
    by_name = dict(zip((job.name for job in plan.jobs), folders, strict=True))
    found = studies_of(plan, folders)
    (topic,) = axis_topics(plan, found)
    for title, slug in (
        ("100 labels", "100-labels"),
        ("300 labels", "300-labels"),
        ("1,000 labels", "1000-labels"),
    ):
        mean = {
            cell: sum(scored(by_name[f"{slug}_{cell}_seed-{seed}"]) for seed in (0, 1)) / 2
            for cell in ("sft", "kd", "kd-2000-prompts")
        }
        rows = {name: values(topic.tables[0], name)[title] for name in ("sft", "kd", "kd (2,000 prompts)")}
        assert "(" not in rows["sft"]
        for row, cell in (("kd", "kd"), ("kd (2,000 prompts)", "kd-2000-prompts")):
            score, difference = re.fullmatch(
                r"([\d.]+) ± [\d.]+ \((?:≈ )?([+-][\d.]+) \[.*\]\)", rows[row]
            ).groups()
            assert float(score) == pytest.approx(100 * mean[cell], abs=0.051)
            assert float(difference) == pytest.approx(100 * (mean[cell] - mean["sft"]), abs=0.051)
        assert "≈" in rows["kd"]  # the same lift, other noise
        assert "≈" not in rows["kd (2,000 prompts)"]


def test_the_picture_has_a_line_per_arm_with_the_scores_of_the_studies(label_runs):
    plan, folders = label_runs
    found = studies_of(plan, folders)
    drawn = lines({group.at: study for group, study in found.items()})
    assert [len(points) for points in drawn.values()] == [3] * 8
    group, study = next(iter(found.items()))
    at, score = drawn["seqkd (2,000 prompts)"][0]
    arm = next(arm for arm in study.arms if arm.label == "seqkd (2,000 prompts)")
    assert (at, score) == (group.at, study.score(arm, study.tasks))
    (topic,) = axis_topics(plan, found)
    (drawing,) = topic.drawings
    bars = drawing.figure.axes[0].containers
    dashed = {bar.get_label(): bar.lines[0].is_dashed() for bar in bars}
    assert dashed["kd"] is False
    assert dashed["kd (2,000 prompts)"] is True
    assert "seqkd (2,000 prompts)" in drawing.alt
    assert "var(--rival)" in inline(drawing, "x")  # by light and by dark


def test_the_page_of_labels_is_written_with_picture_and_numbers(label_runs, tmp_path):
    plan, folders = label_runs
    page, *files = write_results(plan, *result_of(plan, folders, "make labels"), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "optimiser steps" in text.splitlines()[2]
    assert "](labels.png)" in text
    assert (page.parent / "labels.png").is_file()
    numbers = [json.loads(line) for line in page.with_suffix(".jsonl").read_text().splitlines()]
    (ours,) = (
        line
        for line in numbers
        if (line["study"], line["arm"], line["task"]) == ("300 labels", "kd (2,000 prompts)", "mean")
    )
    assert ours["against"] == "sft"
    assert ours["difference_low"] > 0
    assert files


def test_a_situation_shows_the_best_control_and_what_the_form_is_above_it(tmp_path):
    lifts: Mapping[str, float] = {
        "semalign_joint": 0.9,
        "kd": 0.3,
        "sft": 0.2,
        "semalign_joint (random map)": 0.6,
    }
    plan = situations("nano", [0, 1])
    plan = replace(plan, groups=plan.groups[:1], jobs=plan.jobs[:16])
    folders = leave(plan, tmp_path, lambda _, name: lifts.get(name, 0.25))
    table = grouped_report(plan, folders).sections[0].table
    found = values(table, "expert teacher, all labels")
    names = ("sft", "kd", "form", "random map", "shuffled targets", "random pairs")
    score = {name: float(found[name].split()[0]) for name in names}
    assert score["random map"] > max(score["shuffled targets"], score["random pairs"])
    for rival, head in (("sft", "sft"), ("kd", "kd"), ("random map", "best control")):
        shown = found[f"minus {head}"]
        assert float(shown.split()[0]) == pytest.approx(score["form"] - score[rival], abs=0.11)
        assert "[+" in shown


def test_one_number_of_steps_is_a_table_without_a_picture(tmp_path):
    plan = cuts("smollm2-135m-to-half", [0])
    folders = leave(plan, tmp_path, lambda _, name: 0.5 if "semalign_cut" in name else 0.2)
    (topic,) = axis_topics(plan, studies_of(plan, folders))
    assert topic.drawings == ()
    assert values(topic.tables[0], "semalign_cut")


def test_the_table_of_meetings_has_a_column_per_share(tmp_path):
    plan = meeting("nano", [0])
    folders = leave(plan, tmp_path, lambda _, name: 0.5 if "hidden_kd" in name else 0.2)
    report = grouped_report(plan, folders)
    (table,) = report.sections[0].topics[0].tables
    assert table.columns[1:] == tuple(f"{share} %" for share in SHARES)
    assert [section.title for section in report.sections[1:]] == [group.title for group in plan.groups]
    assert values(table, "hidden_kd")
