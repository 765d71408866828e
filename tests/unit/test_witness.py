"""Verdicts on fixed answers: they change only together with a task's version, and what is no answer is never right.

`tests/witness/<task>.json` holds rows (of the real benchmarks: in their upstream form), an answer to each, the
verdicts, the scores, and the version that gave them. After a change that is meant: raise the task's `version`, and run
this file with `PKT_WITNESS=write`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pkt.evaluation.harness import evaluate
from pkt.evaluation.quiet import quiet
from pkt.tasks.base import Task
from pkt.tasks.find import find, known
from pkt.tasks.grading import Exact, record, text
from tiny import tiny_model, tiny_tokenizer

FOLDER = Path(__file__).resolve().parents[1] / "witness"
Witness = dict[str, Any]


def kept(name: str) -> Witness:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(depth=1, context=4096)


@pytest.fixture
def judge(model, monkeypatch) -> Callable[[Task, Witness], Witness]:
    """Let a task grade the answers of a witness, by the way that a model's take."""
    with quiet():
        from pkt.evaluation.scorer import Hits, Scorer

    def build(task: Task, witness: Witness) -> Witness:
        cases = witness["cases"]
        texts = iter([case.get("text") for case in cases])
        likes = iter(
            [
                (float(value), *case.get("hits", [0, 1, 0])[1:])
                for case in cases
                for value in case.get("options", case.get("hits", [0])[:1])
            ]
        )

        def loglikelihood(self, requests, disable_tqdm=False):
            found = [
                Hits(loglikelihood=a, tokens=b, right=c) for _, (a, b, c) in zip(requests, likes, strict=True)
            ]
            self.hits |= {tuple(one.args): hits for one, hits in zip(requests, found, strict=True)}
            return [(hits.loglikelihood, False) for hits in found]

        monkeypatch.setattr(Scorer, "loglikelihood", loglikelihood)
        monkeypatch.setattr(
            Scorer, "generate_until", lambda self, requests, **_: [next(texts) for _ in requests]
        )
        rows = [
            {"id": str(number)} | {k: json.dumps(v) if k == "doc" else v for k, v in case["row"].items()}
            for number, case in enumerate(cases)
        ]
        found = evaluate(model, tiny_tokenizer(), [task], {task.name: rows}, timeout=5.0)
        assert next(texts, None) is None
        flags = [{k: one[k] for k in ("correct", "strict") if k in one} for one in found.samples[task.name]]
        scores = {score.metric: None if math.isnan(score.value) else score.value for score in found.scores}
        return {"verdicts": flags, "scores": scores}

    return build


@pytest.mark.parametrize("name", known())
def test_verdicts_change_only_with_the_version(name, judge):
    task, witness = find(name), kept(name)
    found = judge(task, witness)
    same = found["verdicts"] == witness["verdicts"] and found["scores"] == pytest.approx(witness["scores"])
    if os.environ.get("PKT_WITNESS") == "write":
        assert same or task.version > witness["version"], (
            f"raise the version of {name}, then write its witness"
        )
        changed = {"version": task.version, "cases": witness["cases"], **found}
        (FOLDER / f"{name}.json").write_text(json.dumps(changed, indent=1) + "\n", encoding="utf-8")
        return
    assert task.version == witness["version"], f"PKT_WITNESS=write notes the new version of {name}"
    assert found["verdicts"] == witness["verdicts"], (
        f"{name} judges otherwise than version {task.version} did"
    )
    assert same


def test_every_witness_has_a_dozen_answers_of_both_kinds():
    assert {file.stem for file in FOLDER.glob("*.json")} == set(known())
    for name in known():
        verdicts = [one["correct"] for one in kept(name)["verdicts"]]
        assert len(verdicts) >= 12
        assert {True, False} == set(verdicts), name


@pytest.mark.parametrize("name", known())
def test_what_is_no_answer_is_never_right(name):
    witness = kept(name)
    empty = [
        verdict["correct"]
        for case, verdict in zip(witness["cases"], witness["verdicts"], strict=True)
        if not case.get("text", "x").strip() or "nan" in [*case.get("options", []), *case.get("hits", [])[:1]]
    ]
    assert empty
    assert not any(empty)


def test_another_grading_is_seen(judge, monkeypatch):
    def lenient(self, row_id, sample):
        target = sample["doc"]["answer"]
        return record(row_id, sample, text(sample), target, text(sample).strip() in target)

    monkeypatch.setattr(Exact, "judged", lenient)
    assert judge(find("nano_math"), kept("nano_math"))["verdicts"] != kept("nano_math")["verdicts"]
