"""GSM8K (Cobbe et al., 2021): word problems; a line per step, then ``#### number``.

The answer that is trained is upstream's without the calculator's marks (``<<48/2=24>>``): no calculator runs when the
task is scored, both of lm-eval's filters (the last number; the number after ``####``) read the same with and without
them, and they take a quarter of the tokens. ``#### number`` stays: the strict filter wants it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from pkt.data.upstream import Doc, Upstream
from pkt.evaluation.parts import Logged, Record, Sample
from pkt.tasks.grading import Answers, Exact, Grading, joined, record, text
from pkt.tasks.suite import NEW_TOKENS, Suite

_MARK = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, kw_only=True)
class LastNumber(Exact):
    """The last number is the answer (the papers' way); ``strict`` is whether the one after ``####`` is right.

    lm-eval finds and compares them; a text without a digit is no number and equals nothing, whatever the target is.
    """

    until: tuple[str, ...] = ()
    new_tokens: int = NEW_TOKENS

    def grade(self, answers: Answers, logged: Logged) -> list[Record]:
        """See `Grading`; lm-eval logs each answer once per filter."""
        strict = {int(s["doc_id"]): _right(s) for _, s in answers if s["filter"] == "strict-match"}
        found = []
        for row_id, sample in answers:
            if sample["filter"] == "flexible-extract":
                one = record(row_id, sample, text(sample), str(sample["target"]), _right(sample))
                one["extracted"] = str(sample["filtered_resps"][0])
                found.append(one | {"strict": strict[int(sample["doc_id"])]})
        return joined(found)


def _right(sample: Sample) -> bool:
    return bool(sample["exact_match"]) and bool(re.search(r"\d", str(sample["filtered_resps"][0])))


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Suite):
    """The benchmark."""

    version: ClassVar[int] = 1
    gradings: ClassVar[tuple[Grading, ...]] = (LastNumber(),)
    upstream: ClassVar[Upstream] = Upstream(
        title="GSM8K", hub="openai/gsm8k", config="main", name="gsm8k", columns=("question", "answer")
    )
    stock: ClassVar[tuple[str, str]] = ("gsm8k", "gsm8k")

    def prompt(self, doc: Doc) -> str:
        """Return the question as lm-eval asks it."""
        return f"Question: {doc['question']}\nAnswer:"

    def answer(self, doc: Doc) -> str:
        """Return the steps and the result, without calculator marks."""
        return f" {_MARK.sub('', str(doc['answer']))}"

    def question(self, doc: Doc) -> str:
        """Return the question."""
        return str(doc["question"])
