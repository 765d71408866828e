"""The shipped nano models score what the suite was made for: a good teacher, a peer, a student with a way to go."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from pkt.config import CheckpointSpec
from pkt.models.pair import load_checkpoint
from pkt.models.source import locate
from scoring import NANO as TASKS
from scoring import scored

ROWS = 200  # of 500: enough to see a broken model, short enough for the default suite
# right answers among the first ROWS of each task, in TASKS' order; new numbers go with a sentence why: these are of the
# family's second edition, on rows drawn by another seed
RIGHT = {
    "teacher": (200, 200, 198, 200),
    "peer": (193, 132, 170, 169),
    "student": (92, 70, 59, 69),
    "code_teacher": (196, 176, 197, 200),
    "tokens_teacher": (200, 191, 200, 197),
}
# Another order of sums turns over rows whose two best tokens tie to rounding (none on the processors and settings that
# were tried); another prompt, grading, stop string or row set moves dozens.
TIES = 2


@cache
def scores(role: str) -> dict[str, float]:
    folder = CheckpointSpec(checkpoint=f"package:pkt/assets/nano/{role}")
    model = load_checkpoint(locate(folder, role).local, torch.device("cpu"))
    evaluation = scored(model.model.float(), model.tokenizer, TASKS, limit=ROWS, batch_size=100)
    return {score.task: score.value for score in evaluation.scores}


# the student answers as many rows as the teachers do, in a third of the time
@pytest.mark.parametrize(
    "role", [pytest.param(role, marks=[] if role == "student" else pytest.mark.slow) for role in RIGHT]
)
def test_as_many_answers_are_right_as_ever(role):
    found = [round(scores(role)[task] * ROWS) for task in TASKS]
    assert found == pytest.approx(list(RIGHT[role]), abs=TIES)


@pytest.mark.slow
def test_the_teacher_knows_the_tasks():
    assert sum(scores("teacher").values()) / len(TASKS) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_student_has_something_to_learn(task):
    noise = 2 * (0.25 / ROWS) ** 0.5  # two standard errors at worst
    assert 0.15 - noise <= scores("student")[task] <= 0.50 + noise
    assert scores("teacher")[task] - scores("student")[task] >= 0.25 + noise


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_peer_has_to_infer_what_the_teacher_has_seen(task):
    assert scores("student")[task] + 0.20 <= scores("peer")[task] < scores("teacher")[task]


@pytest.mark.slow
def test_the_code_teacher_codes_as_well_as_its_teacher():
    for task in ("nano_code", "nano_program"):
        assert scores("code_teacher")[task] >= scores("teacher")[task] - 0.03
