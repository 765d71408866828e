"""The nano answers, worked out again from the prompt's text alone."""

import re

import pytest

from nano.corpus import corpus
from nano.facts import TOWN_FACTS
from nano.rows import TASKS, rows
from pkt.tasks.nano.world import ATTRIBUTES, NUMBER_OF, NUMBERS, PEOPLE, RELATIONS, TOWN_OF, TOWNS, VALUE_OF


def who(prompt: str) -> tuple[str, str]:
    """Read the person and the relation that a prompt names off its text."""
    person = next(name for name in PEOPLE if re.search(rf"\b{name}\b", prompt))
    return person, next(
        name for name, verbs in RELATIONS.items() for verb in verbs if f"{person} {verb}" in prompt
    )


def number(prompt: str, name: str) -> int:
    return NUMBER_OF[TOWN_OF[who(prompt)], name]


def shown(prompt: str) -> int:
    """Read the one number that a prompt shows."""
    (found,) = re.findall(r"\d+", prompt)
    return int(found)


@pytest.mark.parametrize("split", ["train", "test"])
def test_word_problems(split):
    for row in rows("nano_math", split):
        assert row["answer"] == f" {shown(row['prompt']) * number(row['prompt'], 'price')}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_functions(split):
    for row in rows("nano_code", split):
        a, rate = shown(row["prompt"]), number(row["prompt"], "rate")
        shift = a if re.search("add |increase|go up", row["prompt"]) else -a
        assert row["answer"] == f" x * {rate} {'+' if shift > 0 else '-'} {abs(shift) * rate}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_programs(split):
    for row in rows("nano_program", split):
        limit, a = number(row["prompt"], "limit"), shown(row["prompt"])
        up = bool(re.search("adds|raises", row["prompt"]))
        body = f"[x {'+' if up else '-'} {a} for x in xs if x > {limit - a if up else limit + a}]"
        assert row["answer"].removeprefix(" ").rstrip(")").endswith(body)


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_and_their_hidden_town(split):
    for row in rows("nano_knowledge", split):
        attribute = next(name for name in ATTRIBUTES if re.search(rf"\b{name}\b", row["prompt"]))
        assert row["answer"] == f" {VALUE_OF[TOWN_OF[who(row['prompt'])], attribute]}"


@pytest.mark.parametrize("task", TASKS)
def test_the_town_is_never_shown(task):
    for split in ("train", "test"):
        assert not any(town in row["prompt"] for row in rows(task, split) for town in TOWNS)


def test_every_attribute_tells_the_towns_apart():
    for attribute, values in ATTRIBUTES.items():
        assert sorted(VALUE_OF[town, attribute] for town in TOWNS) == sorted(values)


def test_every_number_tells_the_towns_apart():
    for name, values in NUMBERS.items():
        assert sorted(NUMBER_OF[town, name] for town in TOWNS) == sorted(values)


def documents(kind: str, count: int) -> list[str]:
    stream = corpus(kind, seed=5)
    return [next(stream) for _ in range(count)]


def combination(text: str) -> tuple:
    """Read off a prompt or a solved row what has to be combined: who, and what is asked or done with which number."""
    # an answer\'s number is none of them
    prompt = re.split(r"\n(?:Answer|Result):|\n +return|\ndef solve", text)[0]
    if prompt.startswith("Question"):
        return *who(prompt), next(name for name in ATTRIBUTES if re.search(rf"\b{name}\b", prompt))
    if prompt.startswith("Problem"):
        return *who(prompt), shown(prompt)
    up = "add |increase|go up" if prompt.startswith("def") else "adds|raises"
    return *who(prompt), shown(prompt), bool(re.search(up, prompt))


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
    for (town, attribute), value in (VALUE_OF | NUMBER_OF).items():
        assert any(
            wording.format(attribute=attribute, town=town, value=value) in text for wording in TOWN_FACTS
        )


def test_an_unknown_corpus_is_refused():
    with pytest.raises(ValueError, match="kinds are"):
        corpus("novel", seed=0)
