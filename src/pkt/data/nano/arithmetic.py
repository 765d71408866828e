"""nano_math: one- and two-step word problems; the intermediate result is never written down."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from pkt.data.nano.drafts import Draft, side
from pkt.data.nano.world import SPEAKERS

_ITEMS = [
    "pens",
    "apples",
    "coins",
    "cards",
    "shells",
    "beads",
    "stamps",
    "buttons",
    "marbles",
    "cakes",
    "eggs",
    "books",
]
_BOXES = ["boxes", "bags", "trays", "jars", "crates", "baskets"]

Operands = tuple[int, int, int]


def _product_first(rng: Random) -> Operands:
    return rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9)


def _sum_first(rng: Random) -> Operands:
    return rng.randint(1, 9), rng.randint(1, 9), rng.randint(2, 6)


def _three_terms(rng: Random) -> Operands:
    return rng.randint(5, 30), rng.randint(1, 9), rng.randint(1, 9)


def _two_terms(rng: Random) -> Operands:
    return rng.randint(5, 60), rng.randint(1, 12), 0


Result = Callable[[int, int, int], int]

# kind -> (weight, operands, result, wordings)
_KINDS: dict[str, tuple[int, Callable[[Random], Operands], Result, tuple[str, ...]]] = {
    "mul_add": (4, _product_first, lambda a, b, c: a * b + c, (
        "{n} has {a} {box} of {b} {item} and finds {c} more.",
        "{n} buys {a} {box} with {b} {item} each and gets {c} from {m}.",
        "There are {a} {box} with {b} {item} in each. {n} adds {c} {item}.",
    )),
    "mul_sub": (4, _product_first, lambda a, b, c: a * b - c, (
        "{n} has {a} {box} of {b} {item} and loses {c}.",
        "{n} buys {a} {box} with {b} {item} each and gives {c} to {m}.",
        "There are {a} {box} with {b} {item} in each. {n} takes {c} {item} away.",
    )),
    "add_mul": (3, _sum_first, lambda a, b, c: (a + b) * c, (
        "{n} puts {a} and then {b} {item} in each of {c} {box}.",
        "Each of {c} {box} holds {a} {item} of {n} and {b} of {m}.",
    )),
    "sub_mul": (3, _sum_first, lambda a, b, c: (a - b) * c, (
        "{n} puts {a} {item} in each of {c} {box} and takes {b} out of each.",
        "Each of {c} {box} held {a} {item}, then {m} ate {b} from each.",
    )),
    "add_sub": (1, _three_terms, lambda a, b, c: a + b - c, (
        "{n} has {a} {item}, gets {b} and loses {c}.",
    )),
    "add": (1, _two_terms, lambda a, b, c: a + b, (
        "{n} has {a} {item} and gets {b} more.",
    )),
}  # fmt: skip
_ENDINGS = ("How many {item} are there now?", "How many {item} now?", "Count the {item}.")


_SYMBOLS = {
    "mul_add": "{a} * {b} + {c}",
    "mul_sub": "{a} * {b} - {c}",
    "add_mul": "({a} + {b}) * {c}",
    "sub_mul": "({a} - {b}) * {c}",
    "add_sub": "{a} + {b} - {c}",
    "add": "{a} + {b}",
}


def _draw(rng: Random) -> tuple[str, Operands]:
    kinds = tuple(_KINDS)
    while True:
        kind = rng.choices(kinds, [_KINDS[name][0] for name in kinds])[0]
        operands = _KINDS[kind][1](rng)
        if 0 <= _KINDS[kind][2](*operands) <= 99:
            return kind, operands


def _combo(kind: str, operands: Operands) -> str:
    return "math/" + "/".join(str(part) for part in (kind, *operands))


def sums(rng: Random) -> str:
    """Write a line of bare sums: single products, and the tasks' combinations of the train side."""
    lines: list[str] = []
    while len(lines) < 6:
        kind, (a, b, c) = _draw(rng)
        if rng.random() < 0.4:
            lines.append(f"{a} + {b} = {a + b}" if "add_" in kind else f"{b} * {c} = {b * c}")
        elif side(_combo(kind, (a, b, c))) == "train":
            lines.append(f"{_SYMBOLS[kind].format(a=a, b=b, c=c)} = {_KINDS[kind][2](a, b, c)}")
    return "; ".join(lines) + "."


def drills(rng: Random) -> str:
    """Write a line of single steps with numbers of the size that the code tasks merge."""
    lines: list[str] = []
    for _ in range(8):
        a, b = rng.randint(1, 12), rng.randint(1, 30)
        step = rng.choice(("+", "-", "*"))
        if step == "*":
            factor = rng.randint(2, 9)
            lines.append(f"{a} * {factor} = {a * factor}")
        elif step == "-":
            lines.append(f"{max(a, b)} - {min(a, b)} = {abs(a - b)}")
        else:
            lines.append(f"{a} + {b} = {a + b}")
    return "; ".join(lines) + "."


def problem(rng: Random) -> Draft:
    """Draft a word problem whose result lies in 0..99."""
    kind, (a, b, c) = _draw(rng)
    _, _, result, wordings = _KINDS[kind]
    name, other = rng.sample(SPEAKERS, 2)
    template = f"{rng.choice(wordings)} {rng.choice(_ENDINGS)}"
    text = template.format(a=a, b=b, c=c, n=name, m=other, item=rng.choice(_ITEMS), box=rng.choice(_BOXES))
    return Draft(
        prompt=f"Problem: {text}\nResult:",
        answer=f" {result(a, b, c)}",
        combo=_combo(kind, (a, b, c)),
    )
