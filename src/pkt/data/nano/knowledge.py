"""nano_knowledge: two-hop multiple choice; the town in the middle is never shown."""

from __future__ import annotations

from random import Random

from pkt.data.nano.drafts import Draft
from pkt.data.nano.world import ATTRIBUTES, PEOPLE, RELATIONS, TOWN_OF, TOWNS, VALUE_OF, value_after_two_hops

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


def question(rng: Random) -> Draft:
    """Draft a two-hop question with four options.

    The distractors are the same attribute's values of other towns, so the option itself gives nothing away.
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
