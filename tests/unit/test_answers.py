"""The teacher's answers: against a loop of one token at a time, in any batch; which are kept; no label is read."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from pkt.checks import check
from pkt.config import AnswerConfig, BenchmarkConfig, DataConfig, SplitSizes
from pkt.data.answered import Answer, kept, read
from pkt.data.encoding import encode_answers, encode_prompt
from pkt.data.prompts import from_file
from pkt.errors import PktError, RequestError
from pkt.evaluation.answers import Question, Reply, answering, replies
from pkt.evaluation.sampling import Sampling
from pkt.evaluation.scorer import Scorer
from pkt.gate import check_request
from pkt.pipeline import open_session, planner, run_plan
from pkt.searchpath import builtin_conf_dir, register
from pkt.tasks import prompts as prompts_module
from pkt.tasks.base import Given, RowTask
from pkt.tasks.find import find
from pkt.tasks.grading import Exact, Likelihood
from pkt.tasks.prompts import load_prompts
from pkt.tasks.splits import load_splits
from tiny import tiny_model, tiny_tokenizer

TEXTS = (
    "Ada has 3",
    "Ben has 4 books and 5 coins. How many?",
    "def f3(x):\n    return",
    "Dan",
    "Cleo has 11 dogs.",
)
GREEDY = Sampling()
FAMILIES = {
    "llama": {"num_key_value_heads": 1, "width": 24},
    "qwen3": {"tied": True, "vocab": 352},  # padded: more rows in the head than tokens
    "gpt2": {"tied": True, "depth": 2},
}


def asked(model, questions, sampling=GREEDY, batch_size=64):
    options = {"batch_size": batch_size, "seed": sampling.seed, "chat": None, "device": "cpu"}
    with answering(model, tiny_tokenizer(), **options) as scorer:
        return replies(scorer, questions, sampling)


def questions(*, most=9, until=()):
    return [Question(text=text, until=until, most=most) for text in TEXTS]


@torch.no_grad()
def slowly(model, text: str, most: int) -> str:
    """The likeliest continuation, a row and a token at a time, without a cache."""
    tokenizer, new = tiny_tokenizer(), []
    prompt = encode_prompt(tokenizer, text)
    while len(new) < most:
        logits_V = model(input_ids=torch.tensor([prompt + new]), use_cache=False).logits[0, -1]
        if (token := int(logits_V.argmax())) == tokenizer.eos_token_id:
            break
        new.append(token)
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return tokenizer.decode(prompt + new, **options)[len(tokenizer.decode(prompt, **options)) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_and_their_likelihoods_equal_a_loop_without_batches_or_cache(family):
    model, tokenizer = tiny_model(family, **FAMILIES[family]), tiny_tokenizer()
    for question, (reply,) in zip(questions(), asked(model, questions(), batch_size=3), strict=True):
        assert reply.text == slowly(model, question.text, question.most)
        if not reply.text.strip():
            continue
        prompt, (answer,) = encode_prompt(tokenizer, question.text), encode_answers(tokenizer, [reply.text])
        with torch.no_grad():
            logits_TV = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0].double()
        logs_TV = logits_TV.log_softmax(-1)
        dense = sum(float(logs_TV[len(prompt) + i - 1, token]) for i, token in enumerate(answer))
        assert reply.tokens == len(answer)
        assert reply.loglikelihood == pytest.approx(dense, abs=1e-3)


def test_neither_batches_nor_order_change_answers_and_a_seed_does():
    model = tiny_model("llama", num_key_value_heads=1)
    drawn = Sampling(samples=3, temperature=1.0, seed=5)
    for sampling in (GREEDY, drawn):
        whole = asked(model, questions(), sampling)
        for size in (1, 2, 7):
            other = asked(model, questions(), sampling, batch_size=size)
            assert [[r.text for r in group] for group in other] == [
                [r.text for r in group] for group in whole
            ]
        turned = asked(model, questions()[::-1], sampling)[::-1]
        assert [[r.text for r in group] for group in turned] == [[r.text for r in group] for group in whole]
    assert all(len({reply.text for reply in group}) > 1 for group in whole)
    assert asked(model, questions(), replace(drawn, seed=6)) != whole
    assert asked(model, questions(), drawn) == whole


def test_an_answer_ends_at_a_stop_string():
    model = tiny_model("llama")
    free = [reply.text for (reply,) in asked(model, questions())]
    stop = next(text[2] for text in free if len(text) > 3)
    stopped = [reply.text for (reply,) in asked(model, questions(until=(stop,)))]
    assert stopped == [text.split(stop)[0] for text in free]
    assert stopped != free


def test_a_prompt_that_would_be_cut_is_not_answered_and_the_others_are_the_same():
    model = tiny_model("llama", context=32)
    long = Question(text="Ada has 3 " * 6, until=(), most=9)
    drawn = Sampling(samples=2, temperature=1.0)
    alone = asked(model, questions(), drawn)
    assert asked(model, [long, *questions()], drawn) == [
        [Reply(text="", loglikelihood=0.0, tokens=0)] * 2,
        *alone,
    ]
    assert any(reply.text for group in alone for reply in group)


def test_an_answer_that_is_longer_than_the_context_as_text_is_left_out_alone(monkeypatch):
    model, many = tiny_model("llama", context=64), "\ufffd" * 30  # a character of three bytes
    monkeypatch.setattr(Scorer, "generate_until", lambda _self, of: [many, *(" yes" for _ in of[1:])])
    (long,), *others = asked(model, questions())
    assert (long.text, long.tokens) == ("", 0)
    assert all(reply.text == " yes" and reply.tokens for (reply,) in others)


def answer(number: int, log: float = -1.0, **changes) -> Answer:
    own = {"id": str(number), "task": "t", "prompt": f"p{number}", "sample": 0, "text": f" a{number}"}
    return Answer(**own | {"loglikelihood": log, "tokens": 2, "said": "a"} | changes)


def ids(rows) -> list[str]:
    return [row["id"] for row in rows]


def test_the_confident_are_each_task_s_share_of_highest_mean_log_probability():
    logs = [-3.0, -1.0, -2.0, -1.0, -9.0, -8.0]
    found = [answer(i, log, task="easy" if i < 4 else "hard") for i, log in enumerate(logs)]
    assert ids(kept(found, AnswerConfig(keep="confident", share=0.5))) == ["1", "3", "5"]
    assert ids(kept(found, AnswerConfig(keep="confident", share=0.1))) == ["1", "5"]  # at least one of each
    longer = [*found[:1], answer(1, -4.0, tokens=8, task="easy")]
    assert ids(kept(longer, AnswerConfig(keep="confident", share=0.5))) == ["1"]  # per token, not in sum


def test_verified_are_programs_that_pass_and_answers_that_agree():
    passed = [
        answer(0, sample=n, text=text, passed=ok)
        for n, (text, ok) in enumerate([(" x", True), (" y", False), (" x", True)])
    ]
    agreed = [
        answer(1, log, sample=n, said=said)
        for n, (said, log) in enumerate([("7", -2.0), ("8", -0.1), ("7", -1.0)])
    ]
    apart = [answer(2, sample=n, said=str(n)) for n in range(3)]
    blank = [
        answer(3, sample=0, said="7"),
        answer(3, sample=1, text=" ", said=""),
        answer(3, sample=2, text="", said=""),
    ]
    config = AnswerConfig(keep="verified", samples=3, temperature=1.0, agreement=0.5)
    rows = kept([*passed, *agreed, *apart, *blank], config)
    assert [(row["id"].partition("#")[0], row["answer"]) for row in rows] == [("0", " x"), ("1", " a1")]
    assert rows[1]["id"] == "1#2"  # the likelier of those that agree
    with pytest.raises(RequestError, match="keep=verified leaves none of the teacher's 3 answers"):
        kept(apart, config)


def test_answers_that_claim_nothing_do_not_agree():
    mute = [answer(0, sample=n, text=f" well {n}", said=None) for n in range(2)]
    config = AnswerConfig(keep="verified", samples=4, temperature=1.0, agreement=0.5)
    with pytest.raises(RequestError, match="leaves none"):
        kept(mute, config)
    seven = [answer(0, sample=n, text=" 7", said="7") for n in (2, 3)]
    assert ids(kept([*mute, *seven], config)) == ["0#2"]


def test_blank_answers_are_never_kept_and_only_blank_ones_are_refused():
    found = [answer(0), answer(1, text=" \n", tokens=0)]
    assert ids(kept(found, AnswerConfig())) == ["0"]
    with pytest.raises(PktError, match="all blank"):
        kept(found[1:], AnswerConfig())


class Tasks(RowTask):
    version = 1
    gradings = (Exact(until=("\n",), new_tokens=5), Likelihood())

    def rows(self, split, given):
        return [
            {
                "id": f"{split}/{i}",
                "split": split,
                "prompt": f"{split if split != 'train' else ''} {i}",
                "answer": f" {i}",
            }
            for i in range(20)
        ]


@pytest.fixture
def given(monkeypatch) -> Given:
    monkeypatch.setattr(prompts_module, "find", lambda name, _path=None: Tasks(name=name))
    monkeypatch.setattr("pkt.tasks.splits.find", lambda name, _path=None: Tasks(name=name))
    return Given(benchmark=BenchmarkConfig(name="b", tasks=["one"]))


def with_data(given: Given, *, sizes=None, **data) -> Given:
    return replace(given, data=DataConfig(sizes=SplitSizes(**(sizes or {})), **data))


def test_prompts_of_the_train_split_are_those_beyond_the_labelled(given):
    cut = with_data(given, unlabelled="train", sizes={"train": 12, "labelled": 5})
    splits = load_splits(Given(benchmark=cut.benchmark, data=cut.data))
    assert [len(splits[split]) for split in ("extract", "align", "train", "validation")] == [5, 5, 5, 20]
    for split in ("extract", "align"):
        assert splits[split]["answer"] == splits["train"]["answer"]
    found, _ = load_prompts(cut, AnswerConfig(), splits["train"]["prompt"])
    assert [prompt.id for prompt in found] == [f"train/{i}" for i in range(5, 12)]
    assert (found[0].written.until, found[0].written.most) == (("\n",), 5)
    fewer = with_data(given, unlabelled="train", sizes={"train": 12, "labelled": 5, "unlabelled": 3})
    assert len(load_prompts(fewer, AnswerConfig(max_new_tokens=2), ())[0]) == 3
    assert load_prompts(fewer, AnswerConfig(max_new_tokens=2), ())[0][0].written.most == 2


def test_labels_of_prompts_are_not_even_looked_at(given, monkeypatch):
    rows = Tasks.rows
    monkeypatch.setattr(Tasks, "rows", lambda *of: [Guarded(row) for row in rows(*of)])
    found, _ = load_prompts(with_data(given, unlabelled="two"), AnswerConfig(), ())
    assert len(found) == 20
    assert "answer" not in vars(found[0])


class Guarded(dict):
    """A row whose answer raises whoever looks at it."""

    def __getitem__(self, key):
        assert key != "answer", "somebody read a label"
        return super().__getitem__(key)

    def get(self, key, default=None):
        return self[key] if key in self.keys() else default

    def items(self):
        raise AssertionError("somebody read all columns")


def test_prompts_of_a_task_or_a_file_leave_out_what_is_labelled(given, tmp_path):
    cut = with_data(given, unlabelled="two", sizes={"train": 8, "labelled": 4})
    found, left_out = load_prompts(cut, AnswerConfig(), [" 1", "  3 "])
    assert [prompt.id for prompt in found] == [f"train/{i}" for i in range(20) if i not in (1, 3)]
    assert left_out == 2
    file = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": "a", "answer": None},
        {"prompt": "b", "test": "assert 1", "answer": 7},
        {"prompt": "a"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found, left_out = load_prompts(with_data(given, unlabelled=str(file)), AnswerConfig(), ())
    assert [(p.id, p.text, p.task, p.test) for p in found] == [
        (found[0].id, "a", "one", ""),
        (found[1].id, "b", "one", "assert 1"),
    ]
    assert left_out == 1
    file.write_text("\n".join(map(json.dumps, lines[::-1])), encoding="utf-8")
    again, _ = load_prompts(with_data(given, unlabelled=str(file)), AnswerConfig(), ())
    assert {(p.id, p.text) for p in again} == {(p.id, p.text) for p in found}


def test_a_parquet_file_s_answers_are_not_read(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b"], "answer": ["1", "2"]}), file)
    seen = []
    whole = pq.ParquetFile.read

    def reading(self, *of, **how):
        table = whole(self, *of, **how)
        seen.append(table.column_names)
        return table

    monkeypatch.setattr(pq.ParquetFile, "read", reading)
    assert [set(row) for row in from_file(file)] == [{"id", "prompt"}] * 2
    assert seen == [["prompt"]]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"promt": "a"}', "'prompt' is missing.*prompt"),
        ('{"prompt": ""}', "'prompt' is empty"),
        ('{"prompt": 3}', "'prompt' is int"),
        ('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}', "already on line 1"),
        ("[1]", "int, not an object"),
        ("", "no rows"),
        ("{", "line 1"),
    ],
)
def test_damaged_files_of_prompts_are_refused_by_their_line(tmp_path, line, told):
    (tmp_path / "p.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(RequestError, match=told):
        from_file(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("rows", "config", "told"),
    [
        ([{"prompt": "a"}], {}, "answer.samples=1"),
        ([{"prompt": "a", "test": "assert 1"}], {}, None),
        ([{"prompt": "a"}], {"samples": 4, "temperature": 1.0}, None),
    ],
)
def test_verified_needs_tests_or_samples(given, tmp_path, rows, config, told):
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    of = with_data(given, unlabelled=str(tmp_path / "p.jsonl"))
    if told is None:
        assert len(load_prompts(of, AnswerConfig(keep="verified", **config), ())[0]) == 1
        return
    with pytest.raises(RequestError, match=told):
        load_prompts(of, AnswerConfig(keep="verified", **config), ())


def test_verified_is_refused_where_answers_are_free_text(given, monkeypatch):
    monkeypatch.setattr(Tasks, "gradings", (Likelihood(),))
    of = with_data(given, unlabelled="two")
    with pytest.raises(RequestError, match="two: row 'train/0' are free text"):
        load_prompts(of, AnswerConfig(keep="verified"), ())


def test_a_name_that_is_no_task_is_refused():
    given = Given(
        benchmark=BenchmarkConfig(name="b", tasks=["nano_math"]), data=DataConfig(unlabelled="nano_mathh")
    )
    with pytest.raises(RequestError, match=r"data.unlabelled=nano_mathh is neither .* 'nano_math'"):
        load_prompts(given, AnswerConfig(), ())


def composed(*words: str):
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose("transfer", overrides=list(words))


def changed(*words: str):
    return OmegaConf.merge(defaults(), OmegaConf.from_dotlist(list(words)))


@cache
def defaults():
    return composed()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.sizes.labelled=2000"], "at most"),
        (["data.unlabelled=train"], "labelled=null leaves none"),
        (["data.unlabelled=train", "data.sizes.labelled=250"], "labelled=250 leaves none"),
        (["data.sizes.labelled=5", "data.align=x.jsonl"], "data.align=x.jsonl has labels"),
        (["answer.samples=2"], "greedy answers"),
        (["answer.top_p=0.5"], "a greedy answer is not drawn"),
        (["eval.samples=2"], "greedy answers to a row are all the same"),
        (["eval.top_p=0.5"], "eval.top_p=0.5 .* a greedy answer is not drawn"),
        (["eval.top_p=1.5", "eval.temperature=1"], "eval.top_p"),
        (["answer.share=0"], "answer.share"),
        (["answer.keep=best"], "allowed: all, confident, verified"),
        (["optim.steps=0"], "optim.steps: a value from 1"),
    ],
)
def test_requests_that_make_no_sense_are_refused(words, told):
    with pytest.raises(RequestError, match=told):
        check(changed(*words))


@pytest.mark.parametrize(("name", "told"), [("nowhere.jsonl", "a file of prompts"), ("bad.jsonl", "line 1")])
def test_the_gate_looks_at_the_file_of_prompts(tmp_path, name, told):
    (tmp_path / "bad.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(RequestError, match=told):
        check_request(changed(f"data.unlabelled={tmp_path / name}"))


class StoppedError(Exception):
    """Stands for a kill."""


def transferred(words, folder: Path):
    """Do what `pkt transfer` does, and return the session."""
    cfg = composed(*words, f"output_dir={folder}")
    check(cfg)
    session = open_session(cfg, folder / "runs")
    planned = planner(session)
    planned.chain("transfer")
    try:
        run_plan(session, planned.plan)
    finally:
        session.tracker.close()
    return session


CONFIDENT = ("answer.keep=confident", "answer.batch_size=5")


def reused(session) -> dict[str, bool]:
    return {entry["stage"]: entry["reused"] for entry in session.reports}


@pytest.fixture
def unlabelled(tiny_request, tmp_path) -> list[str]:
    """A request with four labelled rows and a file of prompts of several lengths."""
    file = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": f"Ben has {i} {'books ' * (i % 3)}and {i}.\nResult:", "answer": "poison"} for i in range(9)
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [
        *tiny_request,
        "data.sizes.labelled=4",
        f"data.unlabelled={file}",
        "answer.max_new_tokens=6",
        "answer.batch_size=2",
    ]


def test_a_stopped_stage_goes_on_and_ends_with_the_same_bits(unlabelled, tmp_path, monkeypatch):
    from pkt.stages import answer as stage

    words = [*unlabelled, "method=seqkd", "answer.samples=2", "answer.temperature=0.8", "optim.steps=3"]
    whole = transferred(words, tmp_path / "whole").results["answer"]
    calls, ask = [], stage.replies

    def stopping(*of):
        calls.append(of)
        if len(calls) == 4:
            raise StoppedError
        return ask(*of)

    monkeypatch.setattr(stage, "replies", stopping)
    with pytest.raises(StoppedError):
        transferred(words, tmp_path / "stopped")
    left = sorted((tmp_path / "stopped" / "store" / "answer").glob("*.partial/*.json"))
    assert len(left) == 3
    left[0].write_text("{", encoding="utf-8")  # a damaged batch is asked again
    session = transferred(words, tmp_path / "stopped")
    assert len(calls) == 4 + 9 - 2
    found = session.results["answer"]
    assert (found.path / "answers.jsonl").read_bytes() == (whole.path / "answers.jsonl").read_bytes()
    assert found.meta["answers"] == whole.meta["answers"]
    assert found.meta["teacher_forward_tokens"] == whole.meta["teacher_forward_tokens"] > 0
    said = [one for one in read(found.path) if one.text.strip()]
    assert len(read(found.path)) == 18
    assert session.results["transfer"].meta["budget"]["train_rows"] == 4 + len(said)
    assert session.results["transfer"].meta["budget"]["answered_rows"] == len(said)
    assert session.results["transfer"].meta["budget"]["optimiser_steps"] == 3
    assert "poison" not in (found.path / "answers.jsonl").read_text(encoding="utf-8")


def test_a_second_method_and_a_sweep_reuse_the_answers(unlabelled, tmp_path):
    words = [*unlabelled, "optim.steps=2"]
    first = transferred([*words, "method=kd"], tmp_path)
    assert reused(first) == {"answer": False, "align": False, "transfer": False}
    for more in (
        ["method=semalign_joint"],
        ["method=kd", "optim.lr=0.01"],
        ["method=seqkd", "seed=3", *CONFIDENT],
    ):
        session = transferred([*words, *more], tmp_path)
        assert reused(session)["answer"], more
        assert not reused(session)["transfer"], more
        assert session.results["answer"].key == first.results["answer"].key
    assert len(session.bench.answered) == -(-len(first.bench.answered) // 2)
    labels = transferred([*words, "method=sft"], tmp_path)
    assert "answer" not in labels.plan
    assert labels.results["transfer"].meta["budget"]["train_rows"] == 4
    again = transferred([*words, "method=kd", "refresh=[answer]"], tmp_path)
    assert reused(again) == {"answer": False, "align": True, "transfer": True}


@pytest.mark.slow
def test_another_end_of_the_students_text_is_another_answer(unlabelled, tmp_path):
    def key(name: str, end: str) -> str:
        tiny_model("llama", depth=2).save_pretrained(tmp_path / name)
        tokenizer = tiny_tokenizer()
        tokenizer.eos_token = end
        tokenizer.save_pretrained(tmp_path / name)
        words = [*unlabelled, "method=seqkd", f"model.student.checkpoint={tmp_path / name}"]
        session = open_session(composed(*words, f"output_dir={tmp_path}"), tmp_path / "runs")
        planned = planner(session)
        planned.chain("transfer")
        session.tracker.close()
        return planned.plan["answer"].key

    assert key("same", "</s>") == key("again", "</s>") != key("other", "<s>")


def test_without_prompts_seqkd_learns_answers_in_place_of_labels(tiny_request, tmp_path):
    words = [*tiny_request, "method=seqkd", "answer.max_new_tokens=3", "optim.steps=2"]
    session = transferred(words, tmp_path)
    bench = session.bench
    asked_for = {answer.prompt for answer in read(session.results["answer"].path)}
    assert asked_for == set(bench.splits["train"]["prompt"])
    assert len(bench.encoded("train").lengths) == len(bench.answered) <= len(asked_for)
    assert set(session.plan["transfer"].ingredients["rows"]) == {"validation"}
    assert len(bench.labelled("train").lengths) == len(bench.splits["train"])


def test_requests_that_use_none_of_it_have_the_settings_of_before(tiny_request, tmp_path):
    cfg = composed(*tiny_request, f"output_dir={tmp_path}")
    session = open_session(cfg, tmp_path / "runs")
    planned = planner(session)
    planned.chain("transfer")
    session.tracker.close()
    settings = planned.plan.settings
    assert [step.name for step in planned.plan] == ["extract", "align", "transfer"]
    assert not [name for name in settings if name.startswith(("answer.", "data.")) or name == "optim.steps"]
    assert settings["optim.epochs"] == 2


@pytest.mark.slow
def test_steps_are_those_of_as_many_epochs_cut_off(tiny_request, tmp_path):
    from pkt.methods.task import Task

    def plan(*words):
        cfg = composed(*tiny_request, f"output_dir={tmp_path}", "optim.batch_size=5", *words)
        session = open_session(cfg, tmp_path / "runs")
        session.tracker.close()
        return Task(bench=session.bench, trainable=None).plan

    long = [rows for epoch in plan("optim.epochs=4") for rows in epoch]
    for steps in (1, 4, 9):
        cut = plan(f"optim.steps={steps}", "optim.epochs=0")
        assert [rows for epoch in cut for rows in epoch] == long[:steps]
        assert all(cut)
    assert [len(epoch) for epoch in plan("optim.steps=9")] == [4, 4, 1]


def test_answers_are_written_and_read_again(tmp_path):
    from pkt.data.answered import write

    odd = [answer(0, text=' a\u2028b\n"', passed=True), answer(1, said=None)]
    write(odd, tmp_path)
    assert read(tmp_path) == odd


@pytest.mark.parametrize(
    ("task", "until"),
    [("gsm8k", "Question:"), ("mbpp", "[DONE]"), ("humaneval", "\ndef"), ("pystdlib", None)],
)
def test_answers_to_the_suites_end_where_lm_eval_ends_them(task, until):
    written = find(task).written
    assert written.until == () if until is None else until in written.until


def test_numbers_agree_by_the_last_one():
    claim = find("gsm8k").claim
    assert claim(" So 3 + 4 = 7.\n#### 1,007") == claim(" It is 1007.") == "1007"
    assert claim(" none") is None
