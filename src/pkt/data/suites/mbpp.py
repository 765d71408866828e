"""MBPP (Austin et al., 2021): a sentence and three asserts to a function; 974 rows.

Trained on `train` and `prompt` (zero-shot scoring does not use the latter as examples), validated on `validation`,
scored on `test` (500). The answer ends in ``[DONE]``, where lm-eval's task stops; upstream's CRLF becomes LF.
"""

from __future__ import annotations

from pkt.data.suites.suite import Suite
from pkt.data.suites.upstream import Doc, Upstream

BOUNDS = (("prompt", 10), ("test", 510), ("validation", 600), ("train", 974))  # last task_id of each split


def prompt(doc: Doc) -> str:
    """Return the task and its first three asserts."""
    tests = "\n".join(doc["test_list"][:3])
    return (
        f"You are an expert Python programmer, and here is your task: {doc['text']} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def answer(doc: Doc) -> str:
    """Return the code and the mark that ends it."""
    return str(doc["code"]).replace("\r\n", "\n") + "\n[DONE]"


def part(doc: Doc) -> str:
    """Return the split of a row of the authors' single file, by its number."""
    number = int(doc["task_id"])
    return next((split for split, last in BOUNDS if number <= last), "none")


MBPP = Suite(
    name="mbpp",
    upstream=Upstream(
        title="MBPP",
        hub="google-research-datasets/mbpp",
        config="full",
        name="mbpp",
        columns=("task_id", "text", "code", "test_list"),
        whole="mbpp",
        part=part,
    ),
    prompt=prompt,
    answer=answer,
    question=lambda doc: str(doc["text"]),
    train=("train", "prompt"),
    own={"validation": ("validation",)},
)
