"""MBPP (Austin et al., 2021): a sentence and three asserts to a function; 974 rows.

Trained on `train` and `prompt` (zero-shot scoring does not use the latter as examples), validated on `validation`,
scored on `test` (500). The answer ends in ``[DONE]``, where lm-eval's task stops; upstream's CRLF becomes LF.
`mbpp_instruct` is the form for chat models: the reply begins with a fence.
"""

from __future__ import annotations

from dataclasses import replace

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


def ask(doc: Doc) -> str:
    """Return the question of the chat form."""
    tests = "\n".join(doc["test_list"][:3])
    return (
        f"You are an expert Python programmer, and here is your task:\n{doc['text']}\n"
        f"Your code should pass these tests:\n{tests}"
    )


def reply(doc: Doc) -> str:
    """Return the reply of the chat form: the code in a fence, which lm-eval opens."""
    code = str(doc["code"]).replace("\r\n", "\n")
    return f"\n```python\n{code}\n```"


def part(doc: Doc) -> str:
    """Return the split of a row of the authors' single file, by its number."""
    number = int(doc["task_id"])
    return next((split for split, last in BOUNDS if number <= last), "none")


SET = Upstream(
    title="MBPP",
    hub="google-research-datasets/mbpp",
    config="full",
    name="mbpp",
    columns=("task_id", "text", "code", "test_list"),
    whole="mbpp",
    part=part,
)
MBPP = Suite(
    name="mbpp",
    upstream=SET,
    prompt=prompt,
    answer=answer,
    question=lambda doc: str(doc["text"]),
    train=("train", "prompt"),
    own={"validation": ("validation",)},
)
MBPP_INSTRUCT = replace(MBPP, name="mbpp_instruct", prompt=ask, answer=reply)
