"""nano_math: one- and two-step word problems; the intermediate result is never written down."""

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
_PRODUCT_FIRST: Bounds = ((2, 9), (2, 9), (1, 9))
_SUM_FIRST: Bounds = ((1, 9), (1, 9), (2, 6))

# kind -> (weight, bounds of the operands, result, wordings)
KINDS: dict[str, tuple[int, Bounds, Result, tuple[str, ...]]] = {
    "mul_add": (4, _PRODUCT_FIRST, lambda a, b, c: a * b + c, (
        "{n} has {a} {box} of {b} {item} and finds {c} more.",
        "{n} buys {a} {box} with {b} {item} each and gets {c} from {m}.",
        "There are {a} {box} with {b} {item} in each. {n} adds {c} {item}.",
    )),
    "mul_sub": (4, _PRODUCT_FIRST, lambda a, b, c: a * b - c, (
        "{n} has {a} {box} of {b} {item} and loses {c}.",
        "{n} buys {a} {box} with {b} {item} each and gives {c} to {m}.",
        "There are {a} {box} with {b} {item} in each. {n} takes {c} {item} away.",
    )),
    "add_mul": (3, _SUM_FIRST, lambda a, b, c: (a + b) * c, (
        "{n} puts {a} and then {b} {item} in each of {c} {box}.",
        "Each of {c} {box} holds {a} {item} of {n} and {b} of {m}.",
    )),
    "sub_mul": (3, _SUM_FIRST, lambda a, b, c: (a - b) * c, (
        "{n} puts {a} {item} in each of {c} {box} and takes {b} out of each.",
        "Each of {c} {box} held {a} {item}, then {m} ate {b} from each.",
    )),
    "add_sub": (1, ((5, 30), (1, 9), (1, 9)), lambda a, b, c: a + b - c, (
        "{n} has {a} {item}, gets {b} and loses {c}.",
    )),
    "add": (1, ((5, 60), (1, 12)), lambda a, b, c: a + b, (
        "{n} has {a} {item} and gets {b} more.",
    )),
}  # fmt: skip
_ENDINGS = ("How many {item} are there now?", "How many {item} now?", "Count the {item}.")


def draw(rng: Random) -> tuple[str, Operands]:
    """Draw a kind and operands whose result lies in 0..99."""
    kinds = tuple(KINDS)
    while True:
        kind = rng.choices(kinds, [KINDS[name][0] for name in kinds])[0]
        a, b, c, *_ = [*(rng.randint(*bounds) for bounds in KINDS[kind][1]), 0]
        if 0 <= KINDS[kind][2](a, b, c) <= 99:
            return kind, (a, b, c)


def combo(kind: str, operands: Operands) -> str:
    """Return the name of a problem's kind and operands (see `Draft.combo`)."""
    return "math/" + "/".join(str(part) for part in (kind, *operands))


def problem(rng: Random) -> Draft:
    """Draft a word problem whose result lies in 0..99."""
    kind, (a, b, c) = draw(rng)
    _, _, result, wordings = KINDS[kind]
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

    version = 1
    gradings = (Exact(until=("\n",), new_tokens=8),)
    drafter: ClassVar[Drafter] = staticmethod(problem)
