import math

import pytest

from pkt.evaluation import grading
from pkt.evaluation.results import Evaluation, TaskScore


def sample(doc, context, resps, answer=None):
    return {
        "doc": {"id": "r", "answer": " 4"} | doc,
        "arguments": [(context, option) for option in answer or [""]],
        "filtered_resps": resps,
        "filter": "none",
        "doc_id": 0,
        "target": "t",
    }


def test_choice_takes_the_likeliest_option():
    given = [
        sample({"label": 1}, "Q", [(-3.0, False), (-1.0, False)], [" a", " b"]),
        sample({"label": 0}, "Q", [(-3.0, False), (-1.0, True)], [" a", " b"]),
    ]
    records = grading.grade("nano_knowledge", given, {}, 1.0)
    assert [record["output"] for record in records] == [" b", " b"]
    (score,) = grading.scores("nano_knowledge", "nano_knowledge", records)
    assert (score.metric, score.value, score.n, score.higher_is_better) == ("acc", 0.5, 2, True)
    assert score.stderr == pytest.approx(0.5)


def test_exact_match_ignores_white_space_at_the_ends_only():
    given = [sample({}, "2+2=", [text]) for text in (" 4", "4 ", "44", "", "4 4")]
    records = grading.grade("nano_math", given, {}, 1.0)
    assert [record["correct"] for record in records] == [True, True, False, False, False]


def test_programs_join_prompt_output_and_test():
    doc = {"prompt": "def f(x):\n    return", "test": "assert f(2) == 4\n", "answer": " x * 2"}
    given = [
        sample(doc, "templated", [text]) for text in (" x + 2", " x", " x +", " 4\nimport os; os._exit(0)")
    ]
    records = grading.grade("nano_code", given, {}, 5.0)
    assert [record["outcome"] for record in records] == ["pass", "fail", "fail", "crash"]
    (score,) = grading.scores("nano_code", "nano_code", records)
    assert (score.metric, score.value) == ("pass@1", 0.25)


def test_likelihood_is_a_ratio_of_sums():
    class Hits:
        def __init__(self, loglikelihood, tokens, right):
            self.loglikelihood, self.tokens, self.right = loglikelihood, tokens, right

    given = [sample({"answer": "é"}, "a", [], ["é"]), sample({"answer": "four"}, "b", [], ["four"])]
    hits = {("a", "é"): Hits(-2 * math.log(2), 2, 2), ("b", "four"): Hits(-7 * math.log(2), 1, 0)}
    records = grading.grade("pystdlib", given, hits, 1.0)
    bits, right = grading.scores("pystdlib", "pystdlib", records)
    assert (bits.metric, bits.value, bits.higher_is_better) == ("bits_per_byte", pytest.approx(9 / 6), False)
    assert (right.metric, right.value, right.higher_is_better) == (
        "token_accuracy",
        pytest.approx(2 / 3),
        True,
    )
    assert [record["correct"] for record in records] == [True, False]


def test_stock_tasks_keep_metrics_that_are_means():
    logged = [
        {"metrics": ["acc", "f1"], "filter": "none", "acc": value, "f1": (0, 1)} for value in (1.0, 0.0)
    ] + [{"metrics": ["exact_match"], "filter": "strict", "exact_match": 1.0}]
    scores = grading.stock_scores("arc", logged, {"acc": True})
    assert [(score.metric, score.value, score.n) for score in scores] == [
        ("acc", 0.5, 2),
        ("exact_match,strict", 1.0, 1),
    ]
    record = grading.stock_record(sample({}, "prompt", ["out"]))
    assert (record["prompt"], record["output"]) == ("prompt", "out")


def test_evaluations_survive_json(tmp_path):
    score = TaskScore(task="t", metric="acc", value=0.1, stderr=0.2, n=3, higher_is_better=True)
    evaluation = Evaluation(
        scores=(score,), samples={"t": [{"id": "é", "correct": True}]}, versions={"t": "1"}
    )
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    evaluation.save(tmp_path / "scores.json")
    assert Evaluation.load(tmp_path / "scores.json") == evaluation
