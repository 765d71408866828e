"""nano_math: two-step word problems, a product and then a sum; the product is never written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pkt.tasks.grading import Exact
from pkt.tasks.nano.drafts import Draft, Drafter, NanoTask
from pkt.tasks.nano.world import SPEAKERS

_ITEMS = [
    "pens", "apples", "coins", "cards", "shells", "beads", "stamps", "buttons", "marbles", "cakes", "eggs", "books",
]  # fmt: skip
_BOXES = ["boxes", "bags", "trays", "jars", "crates", "baskets"]

Operands = tuple[int, int, int]
Bounds = tuple[tuple[int, int], ...]
Result = Callable[[int, int, int], int]
_OPERANDS: Bounds = ((2, 9), (2, 9), (2, 9))

# kind -> (result, wordings)
KINDS: dict[str, tuple[Result, tuple[str, ...]]] = {
    "mul_add": (lambda a, b, c: a * b + c, (
        "{n} has {a} {box} of {b} {item} and finds {c} more.",
        "{n} buys {a} {box} with {b} {item} each and gets {c} from {m}.",
        "There are {a} {box} with {b} {item} in each. {n} adds {c} {item}.",
    )),
    "mul_sub": (lambda a, b, c: a * b - c, (
        "{n} has {a} {box} of {b} {item} and loses {c}.",
        "{n} buys {a} {box} with {b} {item} each and gives {c} to {m}.",
        "There are {a} {box} with {b} {item} in each. {n} takes {c} {item} away.",
    )),
}  # fmt: skip
_ENDINGS = ("How many {item} are there now?", "How many {item} now?", "Count the {item}.")


def draw(rng: Random) -> tuple[str, Operands]:
    """Draw a kind and its operands; the result lies in 0..99."""
    while True:
        kind = rng.choice(tuple(KINDS))
        a, b, c = (rng.randint(*bounds) for bounds in _OPERANDS)
        if KINDS[kind][0](a, b, c) >= 0:
            return kind, (a, b, c)


def combo(kind: str, operands: Operands) -> str:
    """Return the name of a problem's kind and operands (see `Draft.combo`)."""
    return "math/" + "/".join(str(part) for part in (kind, *operands))


def problem(rng: Random) -> Draft:
    """Draft a word problem whose result lies in 0..99."""
    kind, (a, b, c) = draw(rng)
    result, wordings = KINDS[kind]
    name, other = rng.sample(SPEAKERS, 2)
    template = f"{rng.choice(wordings)} {rng.choice(_ENDINGS)}"
    text = template.format(a=a, b=b, c=c, n=name, m=other, item=rng.choice(_ITEMS), box=rng.choice(_BOXES))
    return Draft(
        prompt=f"Problem: {text}\nResult:",
        answer=f" {result(a, b, c)}",
        combo=combo(kind, (a, b, c)),
    )


@dataclass(frozen=True, kw_only=True)
class Arithmetic(NanoTask):
    """The task."""

    version = 2
    gradings = (Exact(until=("\n",), new_tokens=8),)
    drafter: ClassVar[Drafter] = staticmethod(problem)
