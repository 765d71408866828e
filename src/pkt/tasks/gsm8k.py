"""GSM8K (Cobbe et al., 2021): word problems; the answer has a line per step, then ``#### number``.

The transfer trains on the published answers without their calculator marks (``<<48/2=24>>``). No calculator runs in
scoring, both of lm-eval's filters (the last number; the number after ``####``) find the same number with and without
the marks, and the marks take a quarter of the tokens. ``#### number`` stays, because the strict filter looks for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pkt.data.upstream import Doc, Upstream
from pkt.evaluation.parts import Logged, Record, Sample
from pkt.tasks.grading import Answers, Exact, joined, record, text
from pkt.tasks.suite import NEW_TOKENS, Suite

_MARK = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class LastNumber(Exact):
    """Take the last number as the answer, as the papers do; ``strict`` says whether the one after ``####`` is right.

    lm-eval finds and compares the numbers. A text without a digit is wrong, whatever the target is.
    """

    until: tuple[str, ...] = ()
    new_tokens: int = NEW_TOKENS

    def claim(self, answer: str) -> str | None:
        """See `Grading`: the last number."""
        found = _NUMBER.findall(answer)
        return found[-1].replace(",", "") if found else None

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

    version = 1
    gradings = (LastNumber(),)
    upstream = Upstream(
        title="GSM8K", hub="openai/gsm8k", config="main", name="gsm8k", columns=("question", "answer")
    )
    stock = ("gsm8k", "gsm8k")

    def prompt(self, doc: Doc) -> str:
        """Return the question as lm-eval asks it."""
        return f"Question: {doc['question']}\nAnswer:"

    def answer(self, doc: Doc) -> str:
        """Return the steps and the result, without calculator marks."""
        return f" {_MARK.sub('', str(doc['answer']))}"
