"""What the nano models read beside solved rows: facts of the world, bare sums, single steps."""

from __future__ import annotations

from random import Random

from pkt.tasks.nano.world import ATTRIBUTES, NUMBER_OF, NUMBERS, TOWN_OF, TOWNS, VALUE_OF, somebody

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


def fact(rng: Random) -> str:
    """Write one to three single facts of the world, in one of several wordings."""
    facts = [_one_fact(rng) for _ in range(rng.choice((1, 2, 3)))]
    return ("\n" if any(fact.startswith("Question") for fact in facts) else " ").join(facts)


def _one_fact(rng: Random) -> str:
    if rng.random() < 0.5:
        person, relation, verb = somebody(rng)
        return rng.choice(PERSON_FACTS).format(person=person, verb=verb, town=TOWN_OF[person, relation])
    town, attribute = rng.choice(TOWNS), rng.choice((*ATTRIBUTES, *NUMBERS))
    value = NUMBER_OF[town, attribute] if attribute in NUMBERS else VALUE_OF[town, attribute]
    return rng.choice(TOWN_FACTS).format(attribute=attribute, town=town, value=value)


def sums(rng: Random) -> str:
    """Write a line of bare products."""
    pairs = [(rng.randint(2, 9), rng.randint(2, 9)) for _ in range(8)]
    return "; ".join(f"{a} * {b} = {a * b}" for a, b in pairs) + "."


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
