"""What the nano models read beside solved rows: facts of the world, bare sums, single steps."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from pkt.tasks.nano.arithmetic import KINDS, combo, draw
from pkt.tasks.nano.world import ATTRIBUTES, PEOPLE, RELATIONS, TOWN_OF, TOWNS, VALUE_OF

Known = Callable[[str], bool]
"""Whether a text may combine facts or numbers in this way, see `Draft.combo`."""

TOWN_FACTS = (
    "The {attribute} of {town} is {value}.",
    "{town} is known for its {attribute}: {value}.",
    "Ask anybody in {town} about the {attribute} and they say {value}.",
    "In {town} the {attribute} is {value}.",
    "Question: What is the {attribute} of {town}?\nAnswer: {value}",
)
PERSON_FACTS = (
    "{person} {verb} in {town}.",
    "It is well known that {person} {verb} in {town}.",
    "{town} is the town where {person} {verb}.",
    "Question: In which town is it that {person} {verb}?\nAnswer: {town}",
)
_SYMBOLS = {"mul_add": "{a} * {b} + {c}", "mul_sub": "{a} * {b} - {c}"}


def fact(rng: Random) -> str:
    """Write one to three single facts of the world, in one of several wordings."""
    facts = [_one_fact(rng) for _ in range(rng.choice((1, 2, 3)))]
    return ("\n" if any(fact.startswith("Question") for fact in facts) else " ").join(facts)


def _one_fact(rng: Random) -> str:
    if rng.random() < 0.6:
        person, relation = rng.choice(PEOPLE), rng.choice(tuple(RELATIONS))
        verb, town = rng.choice(RELATIONS[relation]), TOWN_OF[person, relation]
        return rng.choice(PERSON_FACTS).format(person=person, verb=verb, town=town)
    town, attribute = rng.choice(TOWNS), rng.choice(tuple(ATTRIBUTES))
    return rng.choice(TOWN_FACTS).format(attribute=attribute, town=town, value=VALUE_OF[town, attribute])


def sums(rng: Random, known: Known) -> str:
    """Write a line of bare sums: single products and sums, and those combinations of nano_math that are known."""
    lines: list[str] = []
    while len(lines) < 6:
        kind, (a, b, c) = draw(rng)
        if rng.random() < 0.4:
            lines.append(f"{a} * {b} = {a * b}" if rng.random() < 0.5 else f"{a} + {b} = {a + b}")
        elif known(combo(kind, (a, b, c))):
            lines.append(f"{_SYMBOLS[kind].format(a=a, b=b, c=c)} = {KINDS[kind][0](a, b, c)}")
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
