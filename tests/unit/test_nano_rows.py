"""The nano tasks: disjoint, deterministic, and right."""

import itertools
import os
import re
import subprocess
import sys
from random import Random

import pytest

from nano.rows import DRAFTERS, SIZES, SPLITS, TASKS, rows
from pkt.tasks.nano.drafts import drafts, side, split_of

CODE_TASKS = ("nano_code", "nano_program")


def drafted(task: str, split: str) -> list:
    return list(itertools.islice(drafts(DRAFTERS[task], task, split), SIZES[task][split]))


@pytest.mark.parametrize("task", TASKS)
def test_no_prompt_is_in_two_splits(task):
    prompts = [row["prompt"] for split in SPLITS for row in rows(task, split)]
    assert len(prompts) == len(set(prompts)) == sum(SIZES[task].values())


@pytest.mark.parametrize("task", TASKS)
def test_combinations_of_test_and_validation_are_theirs_alone(task):
    combos = {split: {draft.combo for draft in drafted(task, split)} for split in SPLITS}
    seen = combos["extract"] | combos["align"] | combos["train"]
    assert not combos["test"] & seen
    assert not combos["validation"] & seen
    assert not combos["test"] & combos["validation"]
    assert min(len(combos["test"]), len(combos["validation"])) > 30


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_the_drafts_and_a_count_is_a_prefix(task):
    assert rows(task, "train", count=7) == rows(task, "train")[:7]
    for row, draft in zip(rows(task, "test"), drafted(task, "test"), strict=True):
        assert (row["prompt"], row["answer"], row["split"]) == (draft.prompt, draft.answer, "test")
        assert split_of(draft) == "test"
    assert len({row["id"] for split in SPLITS for row in rows(task, split)}) == sum(SIZES[task].values())


@pytest.mark.parametrize("task", TASKS)
def test_train_rows_cover_most_of_what_they_may_combine(task):
    """A method can only reach held-out combinations if the rows show most of the parts that these are made of."""
    reachable = {draft.combo for draft in itertools.islice(_all_drafts(task), 40_000)}
    on_the_train_side = {combo for combo in reachable if side(combo) == "train"}
    covered = {draft.combo for draft in drafted(task, "train")[:1000]}
    assert covered <= on_the_train_side
    assert len(covered) > 0.75 * len(on_the_train_side)


def _all_drafts(task: str):
    rng = Random(1)
    while True:
        yield DRAFTERS[task](rng)


def test_rows_are_copies():
    rows("nano_math", "test", count=1)[0]["prompt"] = "changed"
    assert rows("nano_math", "test", count=1)[0]["prompt"] != "changed"


@pytest.mark.slow
def test_another_process_with_another_hash_seed_draws_the_same():
    program = (
        "import hashlib; from nano.rows import rows, TASKS; from nano.corpus import corpus; import itertools;"
        "text = str([rows(t, 'test', count=20) for t in TASKS]);"
        "text += str(list(itertools.islice(corpus('code', 3), 50)));"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    digests = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1] != ""


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", CODE_TASKS)
def test_canonical_programs_pass_and_others_fail(task, split):
    for row in rows(task, split, count=min(200, SIZES[task][split])):
        exec(row["prompt"] + row["answer"] + "\n" + row["test"], {})
        for wrong in (" x", " xs", " 0", " x + 1000", " sum(xs) + 1"):
            with pytest.raises(Exception):  # noqa: B017, PT011 - any failure is a failed test
                exec(row["prompt"] + wrong + "\n" + row["test"], {})


@pytest.mark.parametrize("task", CODE_TASKS)
def test_a_changed_number_fails(task):
    for row in rows(task, "test", count=200):
        body = re.sub(r"(\d+)(?=\D*$)", lambda found: str(int(found[1]) + 3), row["answer"])
        with pytest.raises(AssertionError):
            exec(f"{row['prompt']}{body}\n{row['test']}", {})


def test_answers_are_one_line_after_a_space():
    for task in TASKS:
        for row in rows(task, "train", count=500):
            assert row["answer"][0] == " "
            assert row["answer"].strip() == row["answer"][1:] != ""
            assert "\n" not in row["answer"]


def test_choices_hold_the_answer_once():
    labels = []
    for row in rows("nano_knowledge", "test"):
        assert len(set(row["choices"])) == 4
        assert f" {row['choices'][row['label']]}" == row["answer"]
        labels.append(row["label"])
    assert all(90 < labels.count(label) < 160 for label in range(4))


def test_sides_have_the_announced_shares():
    sides = [side(f"any/{index}") for index in range(5000)]
    assert sides.count("test") / 5000 == pytest.approx(0.25, abs=0.02)
    assert sides.count("validation") / 5000 == pytest.approx(0.15, abs=0.02)
