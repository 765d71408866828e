"""From run folders to differences: the answers are found, belong together, and say so where they do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pkt.errors import RequestError
from pkt.evaluation.results import Evaluation
from pkt.evaluation.statistics import mean
from pkt.reporting.answers import read_answers
from pkt.reporting.runs import arms, load_runs
from pkt.reporting.study import Study, studies
from pkt.reporting.study_tables import pairs_table, study_table
from pkt.table import Table

ROWS = 200


def study_tables(
    runs: list[dict[str, Any]], *, against: str | None = None, pairs: bool = False
) -> list[Table]:
    """Return each study's table, and after it that of every arm against every other where there is one."""
    every = studies(runs, against)
    tables = [(study_table(study), pairs_table(study) if pairs else None) for study in every]
    return [table for both in tables for table in both if table]


def records(correct: np.ndarray, prefix: str = "row") -> list[dict[str, Any]]:
    return [{"id": f"{prefix}/{i}", "target": "x", "correct": bool(right)} for i, right in enumerate(correct)]


def score(task: str, estimate: Any, metric: str = "acc", *, higher: bool = True) -> dict[str, Any]:
    return {
        "task": task,
        "metric": metric,
        "value": estimate.value,
        "stderr": estimate.stderr,
        "n": ROWS,
        "higher_is_better": higher,
    }


def leave(
    outputs: Path,
    name: str,
    roles: dict[str, dict[str, list[dict[str, Any]]]],
    *,
    seed: int = 0,
    **extra: Any,
) -> Path:
    """Write a run folder as `pkt run` does, and its evaluations in the store."""
    folder = outputs / "runs" / "run" / f"{name}-{seed}"
    folder.mkdir(parents=True)
    scores, stages = {}, [{"stage": "transfer", "key": "k"}]
    for role, samples in roles.items():
        key = f"{name}-{role}-{seed}"
        (outputs / "store" / "eval" / key).mkdir(parents=True)
        Evaluation(scores=(), samples=samples, versions={}).save(
            outputs / "store" / "eval" / key / "scores.json"
        )
        stages.append({"stage": f"eval {role}", "key": key})
        scores[role] = {
            task: score(task, mean([float(record["correct"]) for record in rows]))
            for task, rows in samples.items()
        }
    content = {
        "method": name.split("+")[0],
        "model": "nano",
        "benchmark": "nano",
        "split": "test",
        "seed": seed,
        "settings": {"method": name},
        "scores": scores,
        "budget": {},
        "stages": stages,
        "store": "../../../store",
        **extra,
    }
    (folder / "scores.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Three methods on the same rows: kd is a little better than sft, plain is the untouched student."""
    rng = np.random.default_rng(0)
    hard = {task: rng.normal(size=ROWS) for task in ("a", "b")}

    def answers(lift: float, noise: int) -> dict[str, list[dict[str, Any]]]:
        jitter = np.random.default_rng(noise)
        return {task: records(level + lift + jitter.normal(0, 0.1, ROWS) > 0) for task, level in hard.items()}

    fixed = {"teacher": answers(2.0, 1), "student": answers(-1.0, 2)}
    for seed in (0, 1, 2):
        leave(tmp_path / "out", "kd", fixed | {"transferred": answers(0.5, 10 + seed)}, seed=seed)
        leave(tmp_path / "out", "sft", fixed | {"transferred": answers(0.2, 20 + seed)}, seed=seed)
        leave(tmp_path / "out", "plain", fixed | {"transferred": answers(-1.0, 2)}, seed=seed)
    return tmp_path / "out"


def cells(table, label: str) -> dict[str, str]:
    row = next(row for row in table.rows if row[0] == label)
    return dict(zip(table.columns, row, strict=True))


def test_the_table_shows_differences_on_the_same_rows(outputs):
    (table,) = study_tables(load_runs([outputs]))
    kd, sft = cells(table, "kd"), cells(table, "sft")
    means = [float(row["mean"].split()[0]) for row in (kd, sft)]
    shown = float(kd["against sft"].split()[0])
    low, high = (float(end) for end in kd["against sft"].split("[")[1].rstrip("]").split(", "))
    assert shown == pytest.approx(means[0] - means[1], abs=0.11)
    assert 0 < low < shown < high
    assert sft["against sft"] == ""
    assert cells(table, "teacher")["against sft"] == ""
    assert "95 % interval" in table.title
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_gap_has_an_interval_around_its_share(outputs, tmp_path):
    (table,) = study_tables(load_runs([outputs]))
    shutil.copytree(outputs / "runs", tmp_path / "elsewhere")  # without the store
    (plain,) = study_tables(load_runs([tmp_path / "elsewhere"]))
    for label in ("kd", "sft", "plain"):
        share, ends = cells(table, label)["gap closed"].split(" % ")
        assert share == cells(plain, label)["gap closed"].split(" % ")[0]
        low, high = (int(end) for end in ends.strip("[]").split(", "))
        assert low <= int(share) <= high
    assert cells(table, "plain")["gap closed"] == "0 % [0, 0]"


def test_equal_arms_are_inside_the_noise(outputs):
    runs = load_runs([outputs])
    twin = [run | {"method": "twin", "settings": {"method": "twin"}} for run in runs if run["method"] == "kd"]
    (table,) = study_tables([*runs, *twin], against="twin")
    assert cells(table, "kd")["against twin"].startswith("≈ +0.0 [")


def test_another_reference_can_be_named_and_a_wrong_one_is_refused(outputs):
    runs = load_runs([outputs])
    (table,) = study_tables(runs, against="kd")
    assert cells(table, "sft")["against kd"].startswith("-")
    with pytest.raises(RequestError, match=r"'kdd' \(did you mean 'kd'\?\): there are kd, plain, sft"):
        study_tables(runs, against="kdd")


def test_the_first_arm_is_the_reference_without_sft(outputs):
    runs = [run for run in load_runs([outputs]) if run["method"] != "sft"]
    assert Study.of(runs).reference.label == arms(runs)[0].label


def test_one_arm_is_compared_with_nothing(outputs):
    (table,) = study_tables([run for run in load_runs([outputs]) if run["method"] == "kd"], pairs=True)
    assert not any(column.startswith("against") for column in table.columns)


def test_pairs_mirror_and_tell_what_is_inside_the_noise(outputs):
    _, table = study_tables(load_runs([outputs]), pairs=True)
    assert table.columns == ("", "kd", "sft", "plain")
    kd, sft = cells(table, "kd"), cells(table, "sft")
    assert kd["kd"] == ""
    assert float(kd["sft"]) == -float(sft["kd"]) > 0
    assert "McNemar" not in table.title


def test_pairs_of_single_seeds_carry_mcnemars_p(outputs):
    runs = [run for run in load_runs([outputs]) if run["seed"] == 0]
    _, table = study_tables(runs, pairs=True)
    assert "McNemar" in table.title
    assert cells(table, "kd")["plain"].endswith("(p < 0.001)")


def test_a_copied_run_still_gets_its_table_and_says_what_is_missing(outputs, tmp_path):
    shutil.copytree(outputs / "runs", tmp_path / "elsewhere")
    tables = study_tables(load_runs([tmp_path / "elsewhere"]), pairs=True)
    assert len(tables) == 1
    assert not any(column.startswith("against") for column in tables[0].columns)
    assert "no differences: no graded answers of sft found" in tables[0].title
    assert "±" in cells(tables[0], "kd")["gap closed"]


def test_a_moved_output_folder_keeps_its_answers(outputs, tmp_path):
    outputs.rename(tmp_path / "moved")
    (table,) = study_tables(load_runs([tmp_path / "moved"]))
    assert "against sft" in table.columns


def test_a_run_outside_the_output_folder_names_its_store(outputs, tmp_path):
    away = tmp_path / "own" / "place"
    shutil.copytree(outputs / "runs" / "run" / "kd-0", away)
    content = json.loads((away / "scores.json").read_text())
    assert read_answers(content | {"folder": str(away)}, "transferred") == {}
    assert set(read_answers(content | {"folder": str(away), "store": "../../out/store"}, "teacher")) == {
        "a",
        "b",
    }


def test_an_arm_without_answers_or_on_other_rows_is_named(outputs):
    shutil.rmtree(outputs / "store" / "eval" / "kd-transferred-1")
    file = outputs / "store" / "eval" / "plain-transferred-0" / "scores.json"
    file.write_text(file.read_text().replace('"row/7"', '"other/7"'))
    (table,) = study_tables(load_runs([outputs]))
    assert table.title.endswith("no answers to the same rows found of kd, plain")
    assert cells(table, "kd")["against sft"] == cells(table, "plain")["against sft"] == "–"
    assert "±" in cells(table, "kd")["gap closed"]
    assert "[" in cells(table, "sft")["gap closed"]


def test_answers_that_do_not_add_up_to_the_score_are_not_its_answers(outputs):
    (run,) = load_runs([outputs / "runs" / "run" / "kd-0"])
    assert set(read_answers(run, "transferred")) == {"a", "b"}
    run["scores"]["transferred"]["a"]["value"] += 0.01
    assert set(read_answers(run, "transferred")) == {"b"}


def test_tasks_of_lm_evals_have_no_answers_per_row(outputs):
    (run,) = load_runs([outputs / "runs" / "run" / "kd-0"])
    file = outputs / "store" / "eval" / "kd-transferred-0" / "scores.json"
    found = Evaluation.load(file)
    for record in found.samples["a"]:
        record["correct"] = None
    found.save(file)
    run["scores"]["transferred"]["b"]["metric"] = "exact_match,strict"
    assert read_answers(run, "transferred") == {}


def test_a_task_without_graded_answers_has_no_differences_but_the_others_keep_their_gap(outputs):
    for file in (outputs / "store" / "eval").glob("*/scores.json"):
        found = Evaluation.load(file)
        for record in found.samples["b"]:
            record["correct"] = None
        found.save(file)
    runs = load_runs([outputs])
    for run in runs:
        run["scores"]["teacher"]["b"] = run["scores"]["student"]["b"]
    (table,) = study_tables(runs, pairs=True)
    assert not any(column.startswith("against") for column in table.columns)
    assert "no differences: no graded answers to b" in table.title
    assert "[" in cells(table, "kd")["gap closed"]


def test_bits_per_byte_are_compared_in_their_own_unit(outputs):
    rng = np.random.default_rng(3)
    length, hard = rng.integers(20, 90, ROWS), rng.uniform(1, 3, ROWS)
    for file in (outputs / "store" / "eval").glob("*/scores.json"):
        found, (method, role, _) = Evaluation.load(file), file.parent.name.split("-")
        lift = {"kd": -0.2, "sft": 0.0, "plain": 0.5}[method] if role == "transferred" else 0.0
        rng = np.random.default_rng([3, *(file.parent.name if role == "transferred" else role).encode()])
        for i, record in enumerate(found.samples["a"]):
            bits = length[i] * (hard[i] + lift + rng.normal(0, 0.1))
            record |= {"bits": bits, "bytes": int(length[i])}
        found.save(file)
        total = sum(record["bits"] for record in found.samples["a"]) / int(length.sum())
        method, role, seed = file.parent.name.split("-")
        summary = outputs / "runs" / "run" / f"{method}-{seed}" / "scores.json"
        content = json.loads(summary.read_text())
        content["scores"][role]["a"] |= {"metric": "bits_per_byte", "value": total, "higher_is_better": False}
        summary.write_text(json.dumps(content))
    table, matrix = study_tables(load_runs([outputs]), pairs=True)
    shown = cells(table, "kd")["against sft: a (↓)"]
    assert float(shown.split()[0]) == pytest.approx(-0.2, abs=0.02)
    assert shown.endswith("]")
    assert "row minus column: a (↓)" in matrix.title


def test_two_scores_that_cannot_be_averaged_leave_the_first_one_to_compare(outputs):
    runs = load_runs([outputs])
    for run in runs:
        for scores in run["scores"].values():  # as gsm8k has them: one set of records, graded in two ways
            scores["b"] |= scores["a"] | {"metric": "exact_match,strict-match"}
    for file in (outputs / "store" / "eval").glob("*/scores.json"):
        found = Evaluation.load(file)
        for record in found.samples["a"]:
            record["strict"] = record["correct"]
        found.save(file)
    (table,) = study_tables(runs)
    kd = cells(table, "kd")
    (against,) = (cell for head, cell in kd.items() if head.startswith("against sft: a ("))  # with its metric
    low, high = (float(end) for end in against.split("[")[1].rstrip("]").split(", "))
    assert (
        low
        < 100 * np.mean([run["scores"]["transferred"]["a"]["value"] for run in runs if run["method"] == "kd"])
        - 100
        * np.mean([run["scores"]["transferred"]["a"]["value"] for run in runs if run["method"] == "sft"])
        < high
    )
    assert "[" in kd["gap closed"]


def test_arms_that_only_a_strategys_own_setting_tells_apart_get_labels_of_their_own(outputs):
    (run,) = load_runs([outputs / "runs" / "run" / "kd-0"])
    settings = [
        {"semantics._target_": "pkt.semantics.Cosine", "semantics.k": 1},
        {"semantics._target_": "pkt.semantics.Ridge", "semantics.k": 1},
        {"semantics._target_": "pkt.semantics.Ridge", "semantics.k": 2},
    ]
    labels = [arm.label for arm in arms([run | {"settings": one} for one in settings])]
    assert labels == ["kd (semantics=cosine)", "kd", "kd (semantics.k=2)"]


def test_scores_of_one_task_count_once_in_a_mean_and_plain_numbers_in_none(outputs):
    runs = load_runs([outputs])
    for run in runs:
        for scores in run["scores"].values():  # pass@1 and pass@10 of one task, and a task of its own
            scores["a (pass@10)"] = scores["a"] | {"metric": "pass@10", "value": 1.0}
    (study,) = studies(runs)
    assert study.averaged
    assert study.compared == study.pooled == ("a", "b")
    for run in runs:
        for scores in run["scores"].values():
            scores["a (bits_per_byte)"] = scores["a"] | {"metric": "bits_per_byte", "value": 1.0}
    (study,) = studies(runs)
    assert not study.averaged
    assert study.compared == ("a",)
    assert study.pooled == ("a", "b")
