import logging
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from pkt.errors import RequestError
from pkt.evaluation.quiet import quiet
from pkt.evaluation.results import Evaluation
from pkt.evaluation.sampling import Sampling
from pkt.reporting.answers import answered
from scoring import NANO, rows_of, scored
from tiny import CHAT, tiny_model, tiny_tokenizer

ROWS = [
    {"prompt": "2+2=", "answer": "4", "id": "a", "split": "test"},
    {"prompt": "1+1=", "answer": "2", "id": "b"},
]


@pytest.fixture(scope="module")
def model():
    return tiny_model(depth=2, context=512)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def answers(monkeypatch):
    """Put a model's answers in place of the scorer's: a function of the prompt."""
    with quiet():
        from pkt.evaluation.scorer import Hits, Scorer

    def install(text, likes):
        def loglikelihood(self, requests, disable_tqdm=False):
            pairs = [request.args for request in requests]
            self.hits |= {pair: Hits(loglikelihood=likes(*pair), tokens=2, right=1) for pair in pairs}
            return [(likes(*pair), False) for pair in pairs]

        def generate(self, requests, disable_tqdm=False):
            return [text(request.args[0]) for request in requests]

        monkeypatch.setattr(Scorer, "loglikelihood", loglikelihood)
        monkeypatch.setattr(Scorer, "generate_until", generate)

    return install


def test_every_nano_task_runs_on_a_random_model(model, tokenizer, capfd, tmp_path):
    evaluation = scored(model, tokenizer, NANO, limit=5, batch_size=4)
    assert [score.task for score in evaluation.scores] == list(NANO)
    assert {score.metric for score in evaluation.scores} == {"acc", "exact_match", "pass@1"}
    for score in evaluation.scores:
        records = evaluation.samples[score.task]
        assert score.n == 5 == len(records)
        assert score.value == sum(record["correct"] for record in records) / 5
        rows = rows_of(score.task)[:5]
        assert [(r["id"], r["prompt"], r["target"]) for r in records] == [
            (row["id"], row["prompt"], row["answer"]) for row in rows
        ]
    evaluation.save(tmp_path / "scores.json")
    assert Evaluation.load(tmp_path / "scores.json") == evaluation
    assert evaluation.versions["nano_math"] == "2"
    assert capfd.readouterr() == ("", "")


def test_right_answers_score_one_and_wrong_ones_nothing(answers, model, tokenizer):
    right = {row["prompt"]: row["answer"] for task in NANO for row in rows_of(task)[:20]}
    answers(right.__getitem__, lambda prompt, option: 0.0 if option == right[prompt] else -9.0)
    perfect = scored(model, tokenizer, NANO, limit=20)
    assert {one.value for one in perfect.scores} == {1.0}
    assert {one.stderr for one in perfect.scores} == {0.0}
    answers(lambda prompt: " None", lambda prompt, option: -9.0 if option == right[prompt] else 0.0)
    hopeless = scored(model, tokenizer, NANO, limit=20)
    assert {one.value for one in hopeless.scores} == {0.0}


def test_nothing_is_left_changed(model, tokenizer):
    model.train()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    level = logging.getLogger("lm_eval").level
    scored(model, tokenizer, ["nano_math"], limit=2, max_new_tokens=1)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after
    assert model.training
    assert logging.getLogger("lm_eval").level == level
    model.eval()


def test_pystdlib_is_scored_in_bits_per_byte_of_the_answers(answers, model, tokenizer):
    answers(lambda prompt: "", lambda prompt, answer: -2.0 * np.log(2))
    evaluation = scored(model, tokenizer, ["pystdlib"], limit=3)
    length = sum(len(row["answer"].encode()) for row in rows_of("pystdlib")[:3])
    bits, right = evaluation.scores
    assert (bits.metric, bits.value) == ("bits_per_byte", pytest.approx(6 / length))
    assert (right.metric, right.value) == ("token_accuracy", 0.5)


def test_custom_rows_are_generated_and_scored(model, tokenizer, answers):
    answers(lambda prompt: " 4\n", lambda prompt, answer: -2.0)
    evaluation = scored(model, tokenizer, ["custom"], rows={"custom": ROWS})
    assert [score.metric for score in evaluation.scores] == ["exact_match", "bits_per_byte", "token_accuracy"]
    assert {score.task for score in evaluation.scores} == {"custom"}
    assert evaluation.scores[0].value == 0.5
    records = evaluation.samples["custom"]
    assert [record["id"] for record in records] == ["a", "b"]
    for score, own in zip(
        evaluation.scores, ("correct", "bits", "right"), strict=True
    ):  # of one record per row
        found = answered(records, asdict(score))
        assert found is not None
        assert found.value_N.tolist() == [float(record[own]) for record in records]
    assert [record["output"] for record in records] == [" 4\n"] * 2


def test_chat_template_wraps_the_prompt(model, tokenizer):
    evaluation = scored(model, tokenizer, ["custom"], rows={"custom": ROWS}, chat=CHAT, max_new_tokens=2)
    assert evaluation.samples["custom"][0]["prompt"] == "[user] 2+2=\n[assistant] "


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        (["nano_mth"], {}, "did you mean 'nano_math'"),
        ([], {}, "name some"),
        (["custom"], {}, "data.test="),
    ],
)
def test_wrong_requests(model, tokenizer, tasks, options, message):
    with pytest.raises(RequestError, match=message):
        scored(model, tokenizer, tasks, **options)


def test_a_missing_chat_template_is_refused(model):
    with pytest.raises(RequestError, match="tokenizer has none"):
        scored(model, tiny_tokenizer(chat=False), ["nano_math"], chat=CHAT)


def test_prompts_that_a_small_context_cuts_are_counted(model, tokenizer):
    small = scored(
        tiny_model(context=16),
        tokenizer,
        ["nano_math", "nano_knowledge", "custom"],
        limit=3,
        rows={"custom": ROWS},
    )
    assert small.cut == {"nano_math": 3, "nano_knowledge": 3}
    assert scored(model, tokenizer, ["nano_math"], limit=3).cut == {}


DRAWN = Sampling(samples=10, temperature=1.0)


def test_drawn_answers_are_kept_per_row_and_scored_as_shares(model, tokenizer):
    tasks = ["nano_math", "nano_code", "custom"]
    found = scored(model, tokenizer, tasks, limit=2, rows={"custom": ROWS}, sampling=DRAWN, max_new_tokens=3)
    assert [(score.task, score.metric, score.n) for score in found.scores] == [
        ("nano_math", "exact_match", 2),
        ("nano_code", "pass@1", 2),
        ("nano_code", "pass@10", 2),
        ("custom", "exact_match", 2),
        ("custom", "bits_per_byte", 2),
        ("custom", "token_accuracy", 2),
    ]
    for task in tasks:
        for record in found.samples[task]:
            assert len(record["samples"]) == 10
            assert len({one["output"] for one in record["samples"]}) > 1
            assert record["correct"] == sum(one["correct"] for one in record["samples"]) / 10
    plain = scored(model, tokenizer, tasks, limit=2, rows={"custom": ROWS}, max_new_tokens=3)
    assert plain.scores[-2:] == found.scores[-2:]  # nothing is drawn for a likelihood
    assert [r["id"] for r in plain.samples["nano_code"]] == [r["id"] for r in found.samples["nano_code"]]


def test_drawn_answers_follow_the_seed_and_not_the_batch(model, tokenizer):
    options = {"limit": 2, "max_new_tokens": 3}
    one = scored(model, tokenizer, ["nano_math"], batch_size=1, sampling=DRAWN, **options)
    assert scored(model, tokenizer, ["nano_math"], batch_size=7, sampling=DRAWN, **options) == one
    other = scored(model, tokenizer, ["nano_math"], sampling=replace(DRAWN, seed=1), **options)
    assert other.samples != one.samples


@pytest.mark.parametrize(
    ("tasks", "sampling", "message"),
    [
        (
            ["nano_math", "nano_knowledge"],
            {"temperature": 0.5},
            "nano_knowledge is scored by log-likelihoods",
        ),
        (["mmlu"], {"samples": 2, "temperature": 0.5}, "mmlu is scored by log-likelihoods"),
        (["pystdlib"], {"temperature": 0.5}, "pystdlib is scored by"),
        (["arc_easy"], {"samples": 2, "temperature": 0.5}, "how often a row is asked"),
    ],
)
def test_draws_that_make_no_sense(model, tokenizer, tasks, sampling, message, no_index):
    rows = dict.fromkeys(tasks, ROWS)
    with pytest.raises(RequestError, match=message):
        scored(model, tokenizer, tasks, rows, sampling=Sampling(**sampling))


def test_a_task_of_lm_evals_keeps_its_metrics_row_by_row(model, tokenizer, task_folder):
    name = "foreign_choice"
    found = scored(model, tokenizer, [name, "nano_math"], task_path=str(task_folder), limit=6)
    assert [one.task for one in found.scores] == [name, name, "nano_math"]
    assert [one.metric for one in found.scores] == ["acc", "acc_norm", "exact_match"]
    for one in found.scores[:2]:
        rows = answered(found.samples[name], asdict(one))
        assert rows.value_N.mean() == pytest.approx(one.value)
        assert len(rows.rows) == one.n == 6
    assert {record["correct"] for record in found.samples[name]} == {True, False}
    assert found.versions[name] == "3"
