"""nano_program: write an expression over a list from a description in a comment (as in MBPP).

As in `functions`, a model has to merge numbers of the description: "adds 4 to each and keeps those above 20" is
written `[x + 4 for x in xs if x > 16]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pkt.tasks.grading import Program
from pkt.tasks.nano.drafts import Draft, Drafter, NanoTask

_PROBES: tuple[list[int], ...] = ([], [3], [40, -7, 12, 5, 5, 0, 21], list(range(-30, 70)))
_LEADS = ("Write a function that", "A function that", "Make a program that")
_WRAPS: dict[str, tuple[str, ...]] = {
    "": ("",),
    "sum": (", and sums them", ", and returns the total"),
    "len": (", and counts them", ", and says how many"),
    "sorted": (", and sorts them", ", and puts them in order"),
}
_TOLD: dict[str, tuple[str, ...]] = {
    "add_above": ("adds {a} to each and keeps those above {b}", "raises each by {a}, keeping what is over {b}"),
    "add_below": ("adds {a} to each and keeps those below {b}", "raises each by {a}, keeping what is under {b}"),
    "sub_above": ("takes {a} from each and keeps those above {b}", "lowers each by {a}, keeping what is over {b}"),
    "mul_mul": ("multiplies each by {a} and then by {b}", "makes each {a} times and then {b} times as large"),
    "band": ("keeps those from {a} up to {b} more than that", "selects from {a} to {b} beyond it"),
}  # fmt: skip
_KINDS = tuple(_TOLD)


def _numbers(kind: str, rng: Random) -> tuple[int, int]:
    return rng.randint(2, 9), rng.randint(2, 9) if kind == "mul_mul" else rng.randint(11, 26)


def _expression(kind: str, a: int, b: int) -> str:
    return {
        "add_above": f"[x + {a} for x in xs if x > {b - a}]",
        "add_below": f"[x + {a} for x in xs if x < {b - a}]",
        "sub_above": f"[x - {a} for x in xs if x > {b + a}]",
        "mul_mul": f"[x * {a * b} for x in xs]",
        "band": f"[x for x in xs if {a} <= x <= {a + b}]",
    }[kind]


def _reference(kind: str, a: int, b: int, xs: list[int]) -> list[int]:
    if kind == "band":
        return [x for x in xs if 0 <= x - a <= b]
    if kind == "mul_mul":
        return [(x * a) * b for x in xs]
    moved = [x - a if kind == "sub_above" else x + a for x in xs]
    return [x for x in moved if (x < b if kind == "add_below" else x > b)]


def _wrapped(wrap: str, xs: list[int]) -> int | list[int]:
    if wrap == "sum":
        return sum(xs)
    if wrap == "len":
        return len(xs)
    return sorted(xs) if wrap == "sorted" else xs


def program(rng: Random) -> Draft:
    """Draft a function of a list of integers."""
    kind = rng.choice(_KINDS)
    wraps = ("", "sum", "sorted") if kind == "mul_mul" else tuple(_WRAPS)
    wrap = rng.choice(wraps)
    a, b = _numbers(kind, rng)
    told = rng.choice(_TOLD[kind]).format(a=a, b=b) + rng.choice(_WRAPS[wrap])
    body = _expression(kind, a, b)
    wanted = [_wrapped(wrap, _reference(kind, a, b, xs)) for xs in _PROBES]
    cases = ", ".join("list(range(-30, 70))" if len(xs) > 10 else repr(xs) for xs in _PROBES)
    return Draft(
        prompt=f"# {rng.choice(_LEADS)} {told}.\ndef solve(xs):\n    return",
        answer=f" {wrap}({body})" if wrap else f" {body}",
        combo=f"program/{kind}/{a}/{b}",
        extras={"entry_point": "solve", "test": f"assert [solve(xs) for xs in [{cases}]] == {wanted}\n"},
    )


@dataclass(frozen=True, kw_only=True)
class Programs(NanoTask):
    """The task."""

    version = 2
    gradings = (Program(until=("\n\n",), new_tokens=32),)
    drafter: ClassVar[Drafter] = staticmethod(program)
