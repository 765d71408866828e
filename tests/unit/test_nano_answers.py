"""The nano answers, worked out again from the prompt's text alone."""

import re

import pytest

from nano.corpus import corpus
from nano.facts import TOWN_FACTS
from nano.rows import rows
from pkt.tasks.nano.world import ATTRIBUTES, PEOPLE, RELATIONS, TOWN_OF, TOWNS, VALUE_OF

PATTERNS = (
    (r"has (\d+) \w+ of (\d+) \w+ and finds (\d+) more", lambda a, b, c: a * b + c),
    (r"buys (\d+) \w+ with (\d+) \w+ each and gets (\d+) from", lambda a, b, c: a * b + c),
    (r"are (\d+) \w+ with (\d+) \w+ in each. \w+ adds (\d+)", lambda a, b, c: a * b + c),
    (r"has (\d+) \w+ of (\d+) \w+ and loses (\d+)", lambda a, b, c: a * b - c),
    (r"buys (\d+) \w+ with (\d+) \w+ each and gives (\d+) to", lambda a, b, c: a * b - c),
    (r"are (\d+) \w+ with (\d+) \w+ in each. \w+ takes (\d+)", lambda a, b, c: a * b - c),
)


def worked_out(prompt: str) -> int:
    for pattern, result in PATTERNS:
        if found := re.search(pattern, prompt):
            return result(*map(int, found.groups()))
    raise AssertionError(prompt)


@pytest.mark.parametrize("split", ["train", "test"])
def test_word_problems(split):
    for row in rows("nano_math", split):
        assert row["answer"] == f" {worked_out(row['prompt'])}"


def two_hops(prompt: str) -> str:
    person = next(name for name in PEOPLE if re.search(rf"\b{name}\b", prompt))
    attribute = next(name for name in ATTRIBUTES if re.search(rf"\b{name}\b", prompt))
    relation = next(
        name for name, verbs in RELATIONS.items() for verb in verbs if f"{person} {verb}" in prompt
    )
    return VALUE_OF[TOWN_OF[person, relation], attribute]


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_and_their_hidden_town(split):
    for row in rows("nano_knowledge", split):
        assert row["answer"] == f" {two_hops(row['prompt'])}"
        assert not any(town in row["prompt"] for town in TOWNS)


def test_every_attribute_tells_the_towns_apart():
    for attribute, values in ATTRIBUTES.items():
        assert sorted(VALUE_OF[town, attribute] for town in TOWNS) == sorted(values)


def documents(kind: str, count: int) -> list[str]:
    stream = corpus(kind, seed=5)
    return [next(stream) for _ in range(count)]


def combination(text: str) -> tuple:
    """Read what has to be combined off a prompt or a solved row: its words without names, and its numbers in order."""
    prompt = re.split(r"\n(?:Answer|Result):", text)[0]  # an answer's number is none of them
    if prompt.startswith("Question"):
        person = next(name for name in PEOPLE if re.search(rf"\b{name}\b", prompt))
        verb = next(r for r, verbs in RELATIONS.items() for verb in verbs if f"{person} {verb}" in prompt)
        return person, verb, next(name for name in ATTRIBUTES if re.search(rf"\b{name}\b", prompt))
    if prompt.startswith("Problem"):
        pattern = next(index for index, (text, _) in enumerate(PATTERNS) if re.search(text, prompt))
        return pattern, *re.findall(r"\d+", prompt)
    start = prompt.index("Take x" if "Take x" in prompt else "x:") if prompt.startswith("def") else 0
    text = prompt[start:].split("\n")[0]
    return re.sub(r"^(# )?(\S+ ){3,4}?that |^x: |^Take x, ", "", text), *re.findall(r"\d+", text)


def asks_for_two_hops(text: str) -> bool:
    question = text.split("\n")[0]
    return any(name in question for name in PEOPLE) and any(f" {name}" in question for name in ATTRIBUTES)


STARTS = {"nano_knowledge": "Question", "nano_math": "Problem", "nano_code": "def", "nano_program": "#"}


def combinations(kinds: tuple[str, ...], task: str) -> set[tuple]:
    """Return what the solved rows in the text of some kinds combine."""
    texts = [text for kind in kinds for text in documents(kind, 4000)]
    solved = [text for text in texts if text.startswith(STARTS[task])]
    if task == "nano_knowledge":
        solved = [text for text in solved if asks_for_two_hops(text)]
    assert len(solved) > 200
    return {combination(text) for text in solved}


def of_rows(task: str, *splits: str) -> set[tuple]:
    return {combination(row["prompt"]) for split in splits for row in rows(task, split)}


@pytest.mark.parametrize("task", STARTS)
def test_student_and_peer_have_read_of_no_held_out_combination(task):
    solved = {combination(row["prompt"] + row["answer"]) for row in rows(task, "test")}
    assert solved == of_rows(task, "test"), "it would go unnoticed"
    assert not of_rows(task, "test", "validation") & combinations(("student", "peer"), task)


@pytest.mark.parametrize("task", STARTS)
def test_the_teachers_have_read_of_held_out_combinations_too(task):
    assert len(of_rows(task, "test") & combinations(("teacher", "code"), task)) > 10


def test_single_facts_are_in_the_pre_training_text():
    text = "\n".join(documents("teacher", 12_000))
    for person in PEOPLE:
        for relation, verbs in RELATIONS.items():
            assert any(f"{person} {verb} in {TOWN_OF[person, relation]}." in text for verb in verbs)
    for (town, attribute), value in VALUE_OF.items():
        facts = [wording.format(attribute=attribute, town=town, value=value) for wording in TOWN_FACTS]
        assert any(fact in text for fact in facts)


def test_an_unknown_corpus_is_refused():
    with pytest.raises(ValueError, match="kinds are"):
        corpus("novel", seed=0)
