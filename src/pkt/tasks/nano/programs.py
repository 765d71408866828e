"""nano_program: write an expression over a list from a description in a comment (as in MBPP).

As in `functions`, a number is looked up and merged: where the limit of the town is 20, "adds 4 to each and keeps those
above the limit where Mira works" is written `[x + 4 for x in xs if x > 16]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pkt.tasks.grading import Program
from pkt.tasks.nano.drafts import Draft, Drafter, NanoTask
from pkt.tasks.nano.world import number_after_two_hops, somebody

_PROBES: tuple[list[int], ...] = ([], [3], [40, -7, 12, 5, 5, 0, 21], list(range(-30, 70)))
_LEADS = ("Write a function that", "A function that", "Make a program that")
_WRAPS: dict[str, tuple[str, ...]] = {
    "": ("",),
    "sum": (", and sums them", ", and returns the total"),
    "len": (", and counts them", ", and says how many"),
    "sorted": (", and sorts them", ", and puts them in order"),
}
_TOLD: dict[str, tuple[str, ...]] = {
    "add": ("adds {a} to each and keeps those above", "raises each by {a}, keeping what is over"),
    "sub": ("takes {a} from each and keeps those above", "lowers each by {a}, keeping what is over"),
}
_LIMITS = ("the limit where {n} {verb}", "the limit of the town where {n} {verb}")


def _wrapped(wrap: str, xs: list[int]) -> int | list[int]:
    if wrap == "sum":
        return sum(xs)
    if wrap == "len":
        return len(xs)
    return sorted(xs) if wrap == "sorted" else xs


def program(rng: Random) -> Draft:
    """Draft a function of a list of integers."""
    person, relation, verb = somebody(rng)
    kind, a, wrap = rng.choice(tuple(_TOLD)), rng.randint(2, 5), rng.choice(tuple(_WRAPS))
    limit, shift = number_after_two_hops(person, relation, "limit"), a if kind == "add" else -a
    above = rng.choice(_LIMITS).format(n=person, verb=verb)
    told = f"{rng.choice(_TOLD[kind]).format(a=a)} {above}{rng.choice(_WRAPS[wrap])}"
    body = f"[x {'+' if shift > 0 else '-'} {a} for x in xs if x > {limit - shift}]"
    wanted = [_wrapped(wrap, [x + shift for x in xs if x + shift > limit]) for xs in _PROBES]
    cases = ", ".join("list(range(-30, 70))" if len(xs) > 10 else repr(xs) for xs in _PROBES)
    return Draft(
        prompt=f"# {rng.choice(_LEADS)} {told}.\ndef solve(xs):\n    return",
        answer=f" {wrap}({body})" if wrap else f" {body}",
        combo=f"program/{person}/{relation}/{kind}{a}",
        extras={"entry_point": "solve", "test": f"assert [solve(xs) for xs in [{cases}]] == {wanted}\n"},
    )


@dataclass(frozen=True, kw_only=True)
class Programs(NanoTask):
    """The task."""

    version = 2
    gradings = (Program(until=("\n\n",), new_tokens=32),)
    drafter: ClassVar[Drafter] = staticmethod(program)
