"""Real benchmarks through the command line, on a tiny pair and tiny sets in the upstream formats; no hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import suite_files as files


@pytest.fixture
def request_of(tiny_request, tmp_path):
    """Overrides for a real benchmark on files of the test's."""
    rest = [word for word in tiny_request if not word.startswith(("benchmark=", "data.train", "data.test"))]
    sets = tmp_path / "sets"
    files.write(sets / "gsm8k" / "train.jsonl", files.gsm8k(40))
    files.write(sets / "gsm8k" / "test.jsonl", files.gsm8k(6, start=100))

    def build(benchmark: str, **more: object) -> list[str]:
        place = [f"benchmark.data_dir={sets}", *(f"{key}={value}" for key, value in more.items())]
        return [*rest, f"benchmark={benchmark}", *place]

    build.sets = sets  # type: ignore[attr-defined]
    return build


def scored(outputs: Path) -> set[str]:
    return {path.parent.name for path in outputs.glob("store/eval/*/scores.json")}


def test_all_stages_on_gsm8k_from_files(pkt, request_of):
    words = request_of("gsm8k")
    result = pkt("run", "method=sft", *words)
    assert result.code == 0, result.err
    (found,) = pkt.outputs.glob("runs/run/*/scores.json")
    assert "exact_match" in json.dumps(json.loads(found.read_text())["scores"]["student"])
    before = scored(pkt.outputs)
    again = pkt("run", "method=sft", *words)
    assert again.code == 0, again.err
    assert scored(pkt.outputs) == before
    files.write(request_of.sets / "gsm8k" / "test.jsonl", files.gsm8k(6, start=200))
    other = pkt("eval", "method=sft", "eval.models=[student]", *words)
    assert other.code == 0, other.err
    assert len(scored(pkt.outputs) - before) == 1


def test_scoring_needs_no_train_rows(pkt, request_of):
    (request_of.sets / "gsm8k" / "train.jsonl").unlink()
    result = pkt("eval", "eval.models=[student]", *request_of("gsm8k"))
    assert result.code == 0, result.err


@pytest.mark.parametrize("verb", ["run", "transfer", "eval"])
def test_a_missing_set_is_one_message_and_leaves_nothing(pkt, request_of, verb):
    result = pkt(verb, *request_of("mmlu"))
    assert result.code == 1
    assert len(result.err.strip().split("\n")) == 1
    assert "MMLU (cais/mmlu on the hub)" in result.err
    assert "benchmark.data_dir=<folder>" in result.err
    assert not pkt.outputs.exists()


def test_a_missing_test_set_is_found_out_before_training(pkt, request_of):
    (request_of.sets / "gsm8k" / "test.jsonl").unlink()
    result = pkt("run", "method=sft", *request_of("gsm8k"))
    assert result.code == 1
    assert "no test rows" in result.err
    assert not pkt.outputs.exists()


def test_long_rows_are_counted_on_both_sides(pkt, request_of):
    docs = files.gsm8k(40)
    for doc in docs[::8]:
        doc["question"] += " Think." * 200
    files.write(request_of.sets / "gsm8k" / "train.jsonl", docs)
    tested = files.gsm8k(3, start=100)
    tested[1]["question"] = "Why? " * 200 + tested[1]["question"]
    files.write(request_of.sets / "gsm8k" / "test.jsonl", tested)
    result = pkt("run", "method=sft", *request_of("gsm8k"))
    assert result.code == 0, result.err
    assert "gsm8k/train: 5 of 40 rows have more than 128 tokens" in result.err
    assert "gsm8k: 1 of 3 prompts do not fit into the student's context" in result.err
    (manifest,) = pkt.outputs.glob("store/transfer/*/manifest.json")
    assert json.loads(manifest.read_text())["meta"]["rows_too_long"] == {"gsm8k/train": "5 of 40"}
    card = next(pkt.outputs.glob("store/transfer/*/model/README.md")).read_text()
    assert 'rows_too_long {"gsm8k/train": "5 of 40"}' in card


@pytest.mark.slow
def test_drawn_answers_have_a_key_of_their_own(pkt, request_of):
    words = ["eval.models=[student]", *request_of("gsm8k")]
    drawn = ["eval.samples=3", "eval.temperature=0.8"]
    for more, count in ([], 1), (drawn, 2), (drawn, 2), ([*drawn, "seed=1"], 3), (["seed=1"], 3):
        result = pkt("eval", *more, *words)
        assert result.code == 0, result.err
        assert len(scored(pkt.outputs)) == count, more


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval.samples=3"], "eval.samples=3 with eval.temperature=0"),
        (["eval.temperature=0.5", "benchmark=mmlu"], "mmlu is scored by log-likelihoods"),
        (["eval.top_p=0"], "eval.top_p"),
    ],
)
def test_draws_that_make_no_sense_are_refused_before_any_work(pkt, request_of, words, message):
    result = pkt("run", *request_of("gsm8k"), *words)
    assert result.code == 2
    assert message in result.err
    assert not pkt.outputs.joinpath("store").exists()


def test_a_task_of_lm_evals_can_be_scored(pkt, tiny_request, task_folder):
    words = [word for word in tiny_request if not word.startswith(("benchmark=", "data.train", "data.test"))]
    asked = [
        *words,
        "benchmark.name=foreign",
        "benchmark.tasks=[foreign_choice]",
        f"benchmark.task_path={task_folder}",
    ]
    result = pkt("eval", "eval.models=[teacher,student]", *asked)
    assert result.code == 0, result.err
    assert "foreign_choice" in result.out
    for file in pkt.outputs.glob("store/eval/*/scores.json"):
        records = json.loads(file.read_text())["samples"]["foreign_choice"]
        assert all(set(record["metrics"]) == {"acc", "acc_norm"} for record in records)
    trained = pkt("run", "method=sft", *asked)
    assert trained.code == 2
    assert "foreign_choice has no training documents" in trained.err


def test_own_rows_are_trained_on_and_other_tasks_are_scored(pkt, pair, task_folder):
    words = ["benchmark=custom", "debug=tiny", "method=sft", "tracker=none", "threads=1"]
    asked = ["benchmark.tasks=[nano_math,foreign_sums]", f"benchmark.task_path={task_folder}"]
    result = pkt("run", *words, *asked, f"data.train={pair['root'] / 'train.jsonl'}")
    assert result.code == 0, result.err
    for file in pkt.outputs.glob("store/eval/*/scores.json"):
        scores = json.loads(file.read_text())["scores"]
        assert [(one["task"], one["n"]) for one in scores] == [("nano_math", 4), ("foreign_sums", 4)]
    (card,) = pkt.outputs.glob("store/transfer/*/model/README.md")
    assert "train 16" in card.read_text()
    before = scored(pkt.outputs)
    trained = pkt("run", *words, *asked, "benchmark.train=[foreign_sums]")  # lm-eval's training documents
    assert trained.code == 0, trained.err
    assert len(scored(pkt.outputs) - before) == 1  # teacher and student are reused
