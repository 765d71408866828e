"""A study on validation rows: what it optimises, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

WORDS = [
    "experiment=tune",
    "benchmark=nano_knowledge",
    "method=sft",
    "debug=tiny",
    "data.sizes.validation=60",
    "eval.limit=null",
    "optim.epochs=1",
    "tracker=none",
    "threads=1",
]


def run(outputs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep in a process of its own: optuna's database warns of things that are errors in this one."""
    pytest.importorskip("optuna", reason="needs the extra sweep")
    environment = {**os.environ, "PKT_OUTPUT_DIR": str(outputs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pkt", "run", "-m", *WORDS, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def trials(outputs: Path) -> list[tuple[int, str, float | None]]:
    with sqlite3.connect(outputs / "optuna.db") as database:
        found = database.execute(
            "select trials.number, trials.state, trial_values.value from trials "
            "left join trial_values on trial_values.trial_id = trials.trial_id order by trials.number"
        ).fetchall()
    database.close()
    return found


@pytest.mark.slow
def test_a_study_maximises_the_gap_closed_on_validation_rows_and_goes_on(tmp_path: Path):
    done = run(tmp_path, "hydra.sweeper.n_trials=2", "optim.lr=choice(0.001,0.0001)", "optim.batch_size=8")
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("runs/run/multirun/*/*/scores.json"))
    scores = [json.loads(file.read_text()) for file in files]
    assert [one["split"] for one in scores] == ["validation", "validation"]
    assert [(state, value) for _, state, value in trials(tmp_path)] == [
        ("COMPLETE", pytest.approx(one["mean_gap_closed"]["value"])) for one in scores
    ]
    assert "VALIDATION rows, not test" in done.stdout
    (table,) = tmp_path.glob("runs/run/multirun/*/table.md")
    assert "VALIDATION rows, not test" in table.read_text()

    # a trial that fails counts as failed, and the study goes on where it was
    again = run(tmp_path, "hydra.sweeper.n_trials=1", "optim.lr=0.001", "optim.batch_size=choice(0,0)")
    assert again.returncode == 0, again.stderr
    assert [state for _, state, _ in trials(tmp_path)] == ["COMPLETE", "COMPLETE", "FAIL"]


@pytest.mark.slow
def test_a_study_on_test_rows_is_refused(tmp_path: Path):
    done = run(tmp_path, "hydra.sweeper.n_trials=1", "eval.split=test", "optim.lr=choice(0.001,0.0001)")
    assert done.returncode != 0
    assert "which test rows are not for: set eval.split=validation" in done.stderr
    assert not list(tmp_path.rglob("store"))


@pytest.mark.slow
def test_a_study_in_which_every_trial_fails_says_so(tmp_path: Path):
    done = run(tmp_path, "hydra.sweeper.n_trials=2", "seed=-1", "optim.lr=choice(0.001,0.0001)")
    assert done.returncode == 1
    assert "seed: a value from 0 is expected" in done.stderr
    assert "no trial of the study ended with a number to optimise" in done.stderr
    assert "Record does not exist" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_does_not_score_cannot_be_optimised(pkt, tiny_request, monkeypatch):
    from pkt import sweeps

    monkeypatch.setattr(sweeps, "_optimiser", lambda: "OptunaSweeper")
    result = pkt("transfer", "method=sft", *tiny_request)
    assert result.code == 2
    assert "`pkt transfer` scores nothing" in result.err
    result = pkt("eval", "method=sft", "eval.split=validation", "eval.models=[student]", *tiny_request)
    assert result.code == 2
    assert "eval.models=[teacher,student,transferred]" in result.err
    result = pkt("run", "method=sft", "eval.split=validation", *tiny_request)  # random models: no gap
    assert result.code == 2
    assert "has nothing to optimise" in result.err


def test_validation_rows_are_scored_apart_from_test_rows(pkt, tiny_request):
    assert pkt("run", "method=identity", *tiny_request).code == 0
    result = pkt("run", "method=identity", "eval.split=validation", *tiny_request)
    assert result.code == 0, result.err
    assert [line.split()[2] for line in result.out.splitlines() if line.startswith("eval ")] == [
        "computed"
    ] * 3
    assert "VALIDATION rows, not test" in result.out
    test, validation = (
        json.loads(file.read_text()) for file in sorted(pkt.outputs.glob("runs/run/*/scores.json"))
    )
    assert (test["split"], validation["split"]) == ("test", "validation")

    def ids(scores: dict) -> set[str]:
        (key,) = (one["key"] for one in scores["stages"] if one["stage"] == "eval student")
        records = json.loads((pkt.outputs / "store" / "eval" / key / "scores.json").read_text())
        return {record["id"] for record in records["samples"]["custom"]}

    assert not ids(test) & ids(validation)
    (card,) = pkt.outputs.glob("store/transfer/*/model/README.md")
    assert "VALIDATION" not in card.read_text()  # a card shows test rows only


@pytest.mark.slow
def test_rows_that_cannot_be_scored_are_refused_before_any_work(pkt):
    words = ("benchmark=humaneval", "benchmark.code_set=pystdlib", "eval.split=validation", "tracker=none")
    result = pkt("run", *words)
    assert result.code == 2
    assert "of humaneval has no doc, which scoring reads; choose settings on another task" in result.err
    assert not pkt.outputs.exists()
