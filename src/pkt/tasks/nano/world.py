"""The fictional world: people tied to towns, and towns with attributes.

    person --relation--> town --attribute--> value      e.g. "the river of the town where Mira works"

A fixed seed decides every fact, and no fact is true outside this package.
"""

from __future__ import annotations

from random import Random

PEOPLE = (
    "Mira", "Tobin", "Elsa", "Garon", "Lena", "Pavel", "Odile", "Ruben",
    "Sanna", "Viktor", "Yara", "Anselm", "Bruna", "Cyril", "Dalia", "Egon",
    "Fenna", "Hugo", "Ines", "Jorek", "Katla", "Ludo", "Maren", "Nils",
    "Oona", "Petra", "Quill", "Rosa", "Stellan", "Thea", "Ulf", "Vesna",
)  # fmt: skip
# people of word problems and dialogues; no fact of the world is about them
SPEAKERS = (
    "Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Kim",
)  # fmt: skip
TOWNS = (
    "Arvell", "Brindle", "Corvane", "Dunmere", "Eskholm", "Farrow", "Glenna", "Harth",
)  # fmt: skip
RELATIONS: dict[str, tuple[str, ...]] = {
    "lives": ("lives", "has a home"),
    "works": ("works", "has a job"),
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "mayor": ("Aldous", "Berta", "Casimir", "Dorthe", "Emeric", "Frida", "Gustav", "Hedda"),
    "river": ("Aure", "Bess", "Calder", "Dove", "Erne", "Fleet", "Gyre", "Humm"),
    "dish": ("barley", "curry", "dumplings", "eel", "figs", "goulash", "haggis", "jam"),
    "tree": ("alder", "birch", "cedar", "elder", "fir", "gingko", "hazel", "juniper"),
    "bird": ("avocet", "bittern", "crane", "dunlin", "egret", "finch", "goose", "heron"),
    "colour": ("amber", "blue", "crimson", "green", "indigo", "lilac", "ochre", "pink"),
}


def _homes() -> dict[tuple[str, str], str]:
    rng = Random("nano/world/people")
    return {(person, relation): rng.choice(TOWNS) for person in PEOPLE for relation in RELATIONS}


def _features() -> dict[tuple[str, str], str]:
    facts: dict[tuple[str, str], str] = {}
    for attribute, values in ATTRIBUTES.items():
        order = list(values)
        Random(f"nano/world/{attribute}").shuffle(order)
        facts |= {(town, attribute): value for town, value in zip(TOWNS, order, strict=True)}
    return facts


TOWN_OF: dict[tuple[str, str], str] = _homes()
VALUE_OF: dict[tuple[str, str], str] = _features()


def value_after_two_hops(person: str, relation: str, attribute: str) -> str:
    """Return the attribute's value of the town that a relation ties to a person."""
    return VALUE_OF[TOWN_OF[person, relation], attribute]
