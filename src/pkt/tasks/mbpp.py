"""MBPP (Austin et al., 2021): write a function from a sentence and three asserts; 974 rows.

A transfer trains on the splits `train` and `prompt` (zero-shot scoring does not need the latter as examples) and is
validated on `validation`; the 500 rows of `test` are scored. The answer ends in ``[DONE]``, where lm-eval's task stops,
and CRLF in the published rows becomes LF.

`mbpp_instruct` is the form for chat models: the reply begins with a code fence. Unlike in lm-eval, no newline follows
the fence, because lm-eval's filter takes the word after three backticks for the name of a language, also a ``def`` at
the start of a reply. (Chat templates that trim messages hide this.)
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pkt.data.upstream import Doc, Upstream
from pkt.tasks.suite import Filtered, Suite

BOUNDS = (("prompt", 10), ("test", 510), ("validation", 600), ("train", 974))  # last task_id of each split


def part(doc: Doc) -> str:
    """Return the split of a row of the authors' single file, by the row's number."""
    number = int(doc["task_id"])
    return next((split for split, last in BOUNDS if number <= last), "none")


@dataclass(frozen=True, kw_only=True)
class Mbpp(Suite):
    """The plain form."""

    version = 1
    gradings = (Filtered(),)
    upstream = Upstream(
        title="MBPP",
        hub="google-research-datasets/mbpp",
        config="full",
        name="mbpp",
        columns=("task_id", "text", "code", "test_list"),
        lists=("test_list",),
        numbers=("task_id",),
        whole="mbpp",
        part=part,
    )
    stock = ("mbpp", "mbpp")
    train = ("train", "prompt")
    own = MappingProxyType({"validation": "validation"})

    def prompt(self, doc: Doc) -> str:
        """Return the task and its first three asserts."""
        tests = "\n".join(doc["test_list"][:3])
        return (
            f"You are an expert Python programmer, and here is your task: {doc['text']} "
            f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
        )

    def answer(self, doc: Doc) -> str:
        """Return the code and the mark that ends it."""
        return f"{_code(doc)}\n[DONE]"

    def question(self, doc: Doc) -> str:
        """Return the sentence."""
        return str(doc["text"])


@dataclass(frozen=True, kw_only=True)
class MbppInstruct(Mbpp):
    """The form for chat models."""

    stock = ("mbpp", "mbpp_instruct")

    def prompt(self, doc: Doc) -> str:
        """Return the question of the chat form."""
        tests = "\n".join(doc["test_list"][:3])
        return (
            f"You are an expert Python programmer, and here is your task:\n{doc['text']}\n"
            f"Your code should pass these tests:\n{tests}"
        )

    def answer(self, doc: Doc) -> str:
        """Return the reply: the code in a fence, whose opening lm-eval writes."""
        return f"\n```python\n{_code(doc)}\n```"

    def adapt(self, task: Any) -> None:
        """See `Suite`."""
        super().adapt(task)
        task.set_config("gen_prefix", task.config.gen_prefix.rstrip("\n"))


def _code(doc: Doc) -> str:
    return str(doc["code"]).replace("\r\n", "\n")
