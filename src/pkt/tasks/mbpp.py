"""MBPP (Austin et al., 2021): a sentence and three asserts to a function; 974 rows.

Trained on `train` and `prompt` (zero-shot scoring does not use the latter as examples), validated on `validation`,
scored on `test` (500). The answer ends in ``[DONE]``, where lm-eval's task stops; upstream's CRLF becomes LF.
`mbpp_instruct` is the form for chat models: the reply begins with a fence. That fence has no newline after it, which is
ours: lm-eval's filter reads the word behind three backticks as the name of a language, and would take a ``def`` at the
start of a reply for one (templates that trim their messages hide this).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from pkt.data.upstream import Doc, Upstream
from pkt.tasks.grading import Grading
from pkt.tasks.suite import Filtered, Suite

BOUNDS = (("prompt", 10), ("test", 510), ("validation", 600), ("train", 974))  # last task_id of each split


def part(doc: Doc) -> str:
    """Return the split of a row of the authors' single file, by its number."""
    number = int(doc["task_id"])
    return next((split for split, last in BOUNDS if number <= last), "none")


@dataclass(frozen=True, kw_only=True)
class Mbpp(Suite):
    """The plain form."""

    version: ClassVar[int] = 1
    gradings: ClassVar[tuple[Grading, ...]] = (Filtered(),)
    upstream: ClassVar[Upstream] = Upstream(
        title="MBPP",
        hub="google-research-datasets/mbpp",
        config="full",
        name="mbpp",
        columns=("task_id", "text", "code", "test_list"),
        whole="mbpp",
        part=part,
    )
    stock: ClassVar[tuple[str, str]] = ("mbpp", "mbpp")
    train: ClassVar[tuple[str, ...]] = ("train", "prompt")
    own: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"validation": ("validation",)})

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

    stock: ClassVar[tuple[str, str]] = ("mbpp", "mbpp_instruct")

    def prompt(self, doc: Doc) -> str:
        """Return the question of the chat form."""
        tests = "\n".join(doc["test_list"][:3])
        return (
            f"You are an expert Python programmer, and here is your task:\n{doc['text']}\n"
            f"Your code should pass these tests:\n{tests}"
        )

    def answer(self, doc: Doc) -> str:
        """Return the reply: the code in a fence, which lm-eval opens."""
        return f"\n```python\n{_code(doc)}\n```"

    def adapt(self, task: Any) -> None:
        """See `Suite`."""
        super().adapt(task)
        task.set_config("gen_prefix", task.config.gen_prefix.rstrip("\n"))


def _code(doc: Doc) -> str:
    return str(doc["code"]).replace("\r\n", "\n")
