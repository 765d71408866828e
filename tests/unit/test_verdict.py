"""The last two lines of a run: whether it helped, harmed or did nothing that can be told, and what to try next."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from pkt.reporting.runs import load_runs
from pkt.reporting.study import Study, shares_of
from pkt.reporting.verdict import Verdict, verdict
from run_folders import ROWS, leave_run


def found(outputs: Path, lift: float, method: str = "kd", **changes) -> Verdict | None:
    folder = leave_run(outputs, method, lift=lift)
    file = folder / "scores.json" if folder.is_dir() else folder
    (run,) = load_runs([file.parent])
    for path, value in changes.items():
        run[path] = value
    return verdict(run)


@pytest.mark.parametrize(
    ("lift", "begins"),
    [(0.6, "it helped: +"), (-0.05, "no difference to the untouched student"), (-0.8, "it harmed: -")],
)
def test_the_sentence_follows_the_interval(tmp_path, lift, begins):
    told = found(tmp_path, lift)
    assert told.sentence.startswith(begins)
    assert "points [" in told.sentence
    assert "(mean of 2 tasks)" in told.sentence


def test_the_way_to_the_teacher_is_told_where_it_helped(tmp_path):
    assert " of the way to the teacher" in found(tmp_path, 0.6).sentence
    assert "of the way" not in found(tmp_path / "worse", -0.8).sentence


@pytest.mark.parametrize(
    ("method", "lift", "remedy"),
    [
        ("kd", 0.6, "pkt run -m method=sft,kd seed=0,1,2"),
        ("sft", 0.6, "does a teacher add to it (docs/when.md)? pkt run"),
        ("kd", -0.8, "optim.lr=0.0003"),
        ("kd", -0.05, "more rows to score"),
    ],
)
def test_what_to_try_next_fits_what_happened(tmp_path, method, lift, remedy):
    assert remedy in found(tmp_path, lift, method).remedy


def test_lower_is_better_where_it_is(tmp_path):
    folder = leave_run(tmp_path, "kd", lift=0.6, tasks=("nano_math",))
    file = next(folder.rglob("scores.json")) if folder.is_dir() else folder
    content = json.loads(file.read_text())
    content.pop("crc", None)
    for tasks in content["scores"].values():
        for score in tasks.values():
            score["higher_is_better"] = False
    (run,) = load_runs([file.parent])
    run["scores"] = content["scores"]
    assert verdict(run).sentence.startswith("it harmed: +")


def test_nothing_is_said_of_what_was_not_scored(tmp_path):
    folder = leave_run(tmp_path, "kd", lift=0.6)
    (run,) = load_runs([folder if folder.is_dir() else folder.parent])
    run["scores"].pop("student")
    assert verdict(run) is None


def test_a_student_that_did_not_change_is_said_to_be_so(tmp_path):
    folder = leave_run(tmp_path, "identity", lift=0.0)
    (run,) = load_runs([folder])
    told = verdict(run)
    assert told.sentence == "no row is scored otherwise than before"
    assert "did it train?" in told.remedy


def test_what_moved_beside_answers_that_did_not_is_told(tmp_path):
    """Own rows are graded by whole answers first, and by their likelihood."""
    folder = leave_run(tmp_path, "identity", lift=0.0, tasks=("own",))
    (run,) = load_runs([folder])
    for role, bits in (("teacher", 2.0), ("student", 8.5), ("transferred", 5.25)):
        own = run["scores"][role]
        own["own (bits_per_byte)"] = own["own"] | {"metric": "bits_per_byte", "value": bits}
    told = verdict(run)
    assert told.sentence.startswith("no row's own")
    assert "bits_per_byte" in told.sentence
    assert told.sentence.endswith("went from 8.500 to 5.250")
    assert "did it train?" not in told.remedy


def graded_twice(tmp_path: Path, lift: float) -> tuple[dict, np.ndarray]:
    """Leave a run on own rows, graded by whole answers and by their likelihood; return it and the noise of its rows."""
    folder = leave_run(tmp_path, "kd", lift=lift, tasks=("own",))
    content = json.loads((folder / "scores.json").read_text())
    noise = np.random.default_rng(0).normal(0, 0.5, ROWS)
    for line in content["stages"]:
        stage, _, role = line["stage"].partition(" ")
        if stage != "eval":
            continue
        file = tmp_path / "store" / "eval" / line["key"] / "scores.json"
        of = json.loads(file.read_text())
        rows = of["samples"]["own"]
        level = {"teacher": 2.0, "student": 8.5, "transferred": 5.25}[role]
        for row, more in zip(rows, noise * (role == "transferred"), strict=True):
            row |= {"bits": 10 * (level + more), "bytes": 10}
        value = sum(row["bits"] for row in rows) / sum(row["bytes"] for row in rows)
        own = content["scores"][role]["own"] | {"metric": "bits_per_byte", "value": value}
        content["scores"][role]["own (bits_per_byte)"] = own | {"higher_is_better": False}
        file.write_text(json.dumps(of))
    (folder / "scores.json").write_text(json.dumps(content))
    (run,) = load_runs([folder])
    return run, noise


@pytest.mark.parametrize("lift", [0.0, 0.03])
def test_where_whole_answers_tell_nothing_likelihoods_are_compared(tmp_path, lift):
    run, noise = graded_twice(tmp_path, lift)
    pattern = r"it helped: (\S+) \[(\S+), (\S+)\] from 8.500 \(own \(bits_per_byte\) \(↓\)\); own \(acc\) is .* too few"
    found = re.match(pattern, told := verdict(run).sentence)
    assert found, told
    value, low, high = map(float, found.groups())
    assert low < value < high < -2.9
    assert value == pytest.approx(-3.25 + noise.mean(), abs=1e-3)
    study = Study.of([run])
    assert study.compared == study.pooled == ("own (bits_per_byte)",)
    assert shares_of(run)["mean"] == shares_of(run)["own (bits_per_byte)"]


def test_beside_answers_that_tell_nothing_sure_likelihoods_are_told(tmp_path):
    run, _ = graded_twice(tmp_path, 0.0)
    (key,) = (line["key"] for line in run["stages"] if line["stage"] == "eval transferred")
    file = tmp_path / "store" / "eval" / key / "scores.json"
    of = json.loads(file.read_text())
    for right in (0, 1):  # as many rows are right now as are wrong now
        for row in [row for row in of["samples"]["own"] if row["correct"] == right][:5]:
            row["moved"] = 1 - right
    for row in of["samples"]["own"]:
        row["correct"] = row.pop("moved", row["correct"])
    file.write_text(json.dumps(of))
    told = verdict(run).sentence
    assert told.startswith("no difference to the untouched student beyond the noise: +0.0 points")
    assert re.search(r"; better: \S+ \[\S+, -[23]\.\d+\] from 8.500 \(own \(bits_per_byte\)", told)


def test_the_way_to_the_teacher_is_that_of_the_score_that_is_told(tmp_path):
    run, _ = graded_twice(tmp_path, 0.6)
    both = verdict(run).sentence
    for scores in run["scores"].values():
        del scores["own (bits_per_byte)"]
    assert both.replace("own (acc)", "own") == verdict(run).sentence
    assert " of the way to the teacher" in both


def test_a_task_that_is_graded_twice_counts_once_in_the_mean(tmp_path):
    run, _ = graded_twice(tmp_path, 0.6)
    shares = shares_of(run)
    assert shares["mean"] == shares["own"] != shares["own (bits_per_byte)"]


def test_what_to_try_next_is_a_command_with_the_same_words(tmp_path):
    command = "pkt run -cn mine method=kd '+model.roles={a:b c}' '~objective.terms.kl' seed=7 optim.steps=40"
    remedy = found(tmp_path, 0.6, command=command).remedy
    asked = remedy.partition("? ")[2]
    assert shlex.split(asked) == [
        *("pkt", "run", "-m", "method=sft,kd", "seed=0,1,2"),
        *("-cn", "mine", "+model.roles={a:b c}", "~objective.terms.kl", "optim.steps=40"),
    ]


def test_a_checkpoint_from_elsewhere_gets_no_advice(tmp_path):
    told = found(tmp_path, 0.6, settings={"model": "nano", "eval.checkpoint": "/some/where"})
    assert told.sentence.startswith("it helped")
    assert (told.advice, told.command, told.remedy) == ("", "", "")
