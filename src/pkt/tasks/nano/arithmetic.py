"""nano_math: what some things cost where a person lives or works; neither the town nor its price is written down."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pkt.tasks.grading import Exact
from pkt.tasks.nano.drafts import Draft, Drafter, NanoTask
from pkt.tasks.nano.world import number_after_two_hops, somebody

_ITEMS = [
    "pens", "apples", "coins", "cards", "shells", "beads", "stamps", "buttons", "marbles", "cakes", "eggs", "books",
]  # fmt: skip
_WORDINGS = (
    "{n} {verb} in a town and buys {a} {item} there at its price.",
    "How much are {a} {item} at the price of the town where {n} {verb}?",
    "Somebody buys {a} {item} where {n} {verb}, at the price there.",
    "{a} {item} are sold in the town where {n} {verb}. Mind its price.",
)


def problem(rng: Random) -> Draft:
    """Draft a word problem: a price of two hops, times a number."""
    person, relation, verb = somebody(rng)
    a = rng.randint(2, 9)
    text = rng.choice(_WORDINGS).format(n=person, verb=verb, a=a, item=rng.choice(_ITEMS))
    return Draft(
        prompt=f"Problem: {text}\nResult:",
        answer=f" {a * number_after_two_hops(person, relation, 'price')}",
        combo=f"math/{person}/{relation}/{a}",
    )


@dataclass(frozen=True, kw_only=True)
class Arithmetic(NanoTask):
    """The task."""

    version = 2
    gradings = (Exact(until=("\n",), new_tokens=8),)
    drafter: ClassVar[Drafter] = staticmethod(problem)
