"""GSM8K (Cobbe et al., 2021): word problems; a line per step, then ``#### number``.

The answer that is trained is upstream's without the calculator's marks (``<<48/2=24>>``): no calculator runs when the
task is scored, both of lm-eval's filters (the last number; the number after ``####``) read the same with and without
them, and they take a quarter of the tokens. ``#### number`` stays: the strict filter wants it.
"""

from __future__ import annotations

import re

from pkt.data.suites.suite import Suite
from pkt.data.suites.upstream import Doc, Upstream

_MARK = re.compile(r"<<[^<>]*>>")


def prompt(doc: Doc) -> str:
    """Return the question as lm-eval asks it."""
    return f"Question: {doc['question']}\nAnswer:"


def answer(doc: Doc) -> str:
    """Return the steps and the result, without calculator marks."""
    return f" {_MARK.sub('', str(doc['answer']))}"


GSM8K = Suite(
    name="gsm8k",
    upstream=Upstream(
        title="GSM8K", hub="openai/gsm8k", config="main", name="gsm8k", columns=("question", "answer")
    ),
    prompt=prompt,
    answer=answer,
    question=lambda doc: str(doc["question"]),
    train=("train",),
)
