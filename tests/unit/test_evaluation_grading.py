import itertools
import math
from dataclasses import asdict

import pytest

from pkt.evaluation.parts import Logged
from pkt.evaluation.results import Evaluation, TaskScore
from pkt.reporting.answers import answered
from pkt.tasks.find import find
from pkt.tasks.lm_eval import row_values, stock_records, stock_scores

ids = itertools.count()


def sample(doc, context, resps, answer=None):
    return {
        "doc": (doc := {"id": f"r{next(ids)}", "answer": " 4"} | doc),
        "arguments": [(context, option) for option in answer or [""]],
        "filtered_resps": resps,
        "resps": [resps],
        "filter": "none",
        "doc_id": 0,
        "target": doc.get("label", "t"),
    }


def graded(task, given, hits):
    answers = [(one["doc"]["id"], one) for one in given]
    return find(task).gradings[0].grade(answers, Logged(samples={}, hits=hits))


def test_choice_takes_the_likeliest_option():
    given = [
        sample({"label": 1}, "Q", [(-3.0, False), (-1.0, False)], [" a", " b"]),
        sample({"label": 0}, "Q", [(-3.0, False), (-1.0, True)], [" a", " b"]),
    ]
    records = graded("nano_knowledge", given, {})
    assert [record["output"] for record in records] == [" b", " b"]
    (score,) = find("nano_knowledge").gradings[0].scores("nano_knowledge", records)
    assert (score.metric, score.value, score.n, score.higher_is_better) == ("acc", 0.5, 2, True)
    assert score.stderr == pytest.approx(0.5)


def test_exact_match_ignores_white_space_at_the_ends_only():
    given = [sample({}, "2+2=", [text]) for text in (" 4", "4 ", "44", "", "4 4")]
    records = graded("nano_math", given, {})
    assert [record["correct"] for record in records] == [True, True, False, False, False]


def test_programs_join_prompt_output_and_test():
    doc = {"prompt": "def f(x):\n    return", "test": "assert f(2) == 4\n", "answer": " x * 2"}
    given = [
        sample(doc, "templated", [text]) for text in (" x + 2", " x", " x +", " 4\nimport os; os._exit(0)")
    ]
    records = graded("nano_code", given, {})
    assert [record["outcome"] for record in records] == ["pass", "fail", "fail", "crash"]
    (score,) = find("nano_code").gradings[0].scores("nano_code", records)
    assert (score.metric, score.value) == ("pass@1", 0.25)


def test_likelihood_is_a_ratio_of_sums():
    class Hits:
        def __init__(self, loglikelihood, tokens, right):
            self.loglikelihood, self.tokens, self.right = loglikelihood, tokens, right

    given = [sample({"answer": "é"}, "a", [], ["é"]), sample({"answer": "four"}, "b", [], ["four"])]
    hits = {("a", "é"): Hits(-2 * math.log(2), 2, 2), ("b", "four"): Hits(-7 * math.log(2), 1, 0)}
    records = graded("pystdlib", given, hits)
    bits, right = find("pystdlib").gradings[0].scores("pystdlib", records)
    assert (bits.metric, bits.value, bits.higher_is_better) == ("bits_per_byte", pytest.approx(9 / 6), False)
    assert (right.metric, right.value, right.higher_is_better) == (
        "token_accuracy",
        pytest.approx(2 / 3),
        True,
    )
    assert [record["correct"] for record in records] == [True, False]


def logged(row, kind="none", **metrics):
    shared = sample({}, f"prompt {row}", ["out"])
    return shared | {"doc_id": row, "filter": kind, "metrics": list(metrics)} | metrics


def test_stock_tasks_keep_metrics_that_are_means():
    given = [logged(row, acc=value, f1=(0, 1), size=value) for row, value in enumerate((1.0, 0.0))]
    given += [logged(row, "strict", exact_match=0.5) for row in (0, 1)]
    results = {
        "acc,none": 0.5,
        "f1,none": 0.5,
        "size,none": 7.0,
        "exact_match,strict": 0.5,
    }  # size is no mean
    values = row_values(given, results)
    scores = stock_scores("arc", values, {"acc": True})
    assert [(score.metric, score.value, score.n) for score in scores] == [
        ("acc", 0.5, 2),
        ("exact_match,strict", 0.5, 2),
    ]
    first, second = stock_records(given, values)
    assert (first["id"], first["prompt"], first["output"]) == ("0", "prompt 0", "out")
    assert first["metrics"] == {"acc": 1.0, "exact_match,strict": 0.5}
    assert (first["correct"], second["correct"]) == (True, False)


def test_stock_rows_can_be_compared_row_by_row():
    given = [logged(row, acc=value) for row, value in enumerate((1.0, 0.0, 1.0))]
    values = row_values(given, {"acc,none": 2 / 3})
    (score,) = stock_scores("arc", values, {})
    found = answered(stock_records(given, values), asdict(score))
    assert found.value_N.tolist() == [1.0, 0.0, 1.0]
    assert [row for row, _ in found.rows] == ["0", "1", "2"]
    assert answered(stock_records(given, values), asdict(score) | {"metric": "acc_norm"}) is None


def test_rows_that_are_answered_several_times_count_as_shares():
    doc = {"prompt": "def f(x):\n    return", "test": "assert f(2) == 4\n", "answer": " x * 2"}
    right, wrong = " x + 2", " x"
    given = [
        sample(doc | {"id": row}, "templated", [text])
        for row, texts in (("a", [right] * 3 + [wrong] * 7), ("b", [wrong] * 10))
        for text in texts
    ]
    records = graded("nano_code", given, {})
    assert [(record["id"], record["correct"], record["pass@10"]) for record in records] == [
        ("a", 0.3, 1.0),
        ("b", 0.0, 0.0),
    ]
    assert [one["outcome"] for one in records[0]["samples"]] == ["pass"] * 3 + ["fail"] * 7
    one, ten = find("nano_code").gradings[0].scores("nano_code", records)
    assert (one.metric, one.value, one.n, one.stderr) == ("pass@1", 0.15, 2, pytest.approx(0.15))
    assert (ten.metric, ten.value, ten.n) == ("pass@10", 0.5, 2)
    for score in (one, ten):
        assert answered(records, asdict(score)).value_N.mean() == pytest.approx(score.value)


def test_evaluations_survive_json(tmp_path):
    score = TaskScore(task="t", metric="acc", value=0.1, stderr=0.2, n=3, higher_is_better=True)
    evaluation = Evaluation(
        scores=(score,), samples={"t": [{"id": "é", "correct": True}]}, versions={"t": "1"}, cut={"t": 1}
    )
    evaluation.save(tmp_path / "scores.json")
    assert Evaluation.load(tmp_path / "scores.json") == evaluation
