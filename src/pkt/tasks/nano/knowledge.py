"""nano_knowledge: multiple choice over two hops (person, town, attribute); the town is never shown."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pkt.tasks.grading import Choice
from pkt.tasks.nano.drafts import Draft, Drafter, NanoTask
from pkt.tasks.nano.world import ATTRIBUTES, PEOPLE, RELATIONS, value_after_two_hops

_TWO_HOPS = (
    "What is the {attribute} of the town where {person} {verb}?",
    "Name the {attribute} of the place where {person} {verb}.",
    "{person} {verb} in a town. Which {attribute} is it known for?",
    "Which {attribute} belongs to the town in which {person} {verb}?",
    "Think of the town where {person} {verb}. What is its {attribute}?",
    "In the town where {person} {verb}, what is the {attribute}?",
    "Somebody asks for the {attribute} of the town where {person} {verb}.",
    "{person} {verb} in a town. Tell me its {attribute}.",
    "Do you know the {attribute} of the town where {person} {verb}?",
    "A letter goes to where {person} {verb}. The {attribute} there?",
)


def question(rng: Random) -> Draft:
    """Draft a two-hop question with four options.

    The wrong options are the same attribute of other towns, so no option can be ruled out by itself.
    """
    person, relation = rng.choice(PEOPLE), rng.choice(tuple(RELATIONS))
    attribute = rng.choice(tuple(ATTRIBUTES))
    text = rng.choice(_TWO_HOPS).format(
        attribute=attribute, person=person, verb=rng.choice(RELATIONS[relation])
    )
    answer = value_after_two_hops(person, relation, attribute)
    choices = rng.sample([value for value in ATTRIBUTES[attribute] if value != answer], 3)
    label = rng.randrange(4)
    choices.insert(label, answer)
    return Draft(
        prompt=f"Question: {text}\nAnswer:",
        answer=f" {answer}",
        combo=f"knowledge/{person}/{relation}/{attribute}",
        extras={"choices": choices, "label": label},
    )


@dataclass(frozen=True, kw_only=True)
class Knowledge(NanoTask):
    """The task."""

    version = 2
    gradings = (Choice(),)
    drafter: ClassVar[Drafter] = staticmethod(question)
