"""Conversations of several turns: what is supervised, in the template's own tokens, from a file to scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pkt.data.conversation import folded, is_packed, messages_of, packed, unpacked
from pkt.data.encoding import encode
from pkt.data.rows import from_file
from pkt.data.shapes import labelled
from pkt.errors import RequestError
from tiny import CHAT, tiny_tokenizer

TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is 1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "And one more?"},
    {"role": "assistant", "content": "3"},
]


def test_messages_come_back_as_they_were_packed():
    for messages in (TURNS[:-1], [{"role": "user", "content": "ümlaut \n 🙂 \x1d"}]):
        assert messages_of(packed(messages)) == messages
    assert messages_of("plain") == [{"role": "user", "content": "plain"}]
    assert not is_packed("plain")
    history = [{"role": "user", "content": packed(TURNS[:-1])}]
    assert unpacked(history) == TURNS[:-1]
    assert unpacked([{"role": "user", "content": "plain"}]) == [{"role": "user", "content": "plain"}]


def test_the_last_reply_or_all_are_rows():
    row = {"messages": TURNS, "id": "talk"}
    (last,) = labelled(row, "here", chat=True)
    assert (last["id"], last["answer"]) == ("talk", "3")
    assert messages_of(last["prompt"]) == TURNS[:-1]
    first, second = labelled(row, "here", "all", chat=True)
    assert (first["id"], messages_of(first["prompt"]), first["answer"]) == ("talk/1", TURNS[:2], "2")
    assert (second["id"], second["prompt"]) == ("talk/2", last["prompt"])
    alone = {"messages": TURNS[:3]}
    assert labelled(alone, "here", chat=True) == labelled(alone, "here", "all", chat=True)
    (plain,) = labelled(alone, "here")
    assert plain["prompt"] == "Be short.\n\nWhat is 1 + 1?"
    (asked,) = labelled({"messages": TURNS[1:3]}, "here", chat=True)
    assert asked["prompt"] == "What is 1 + 1?"  # a question alone is what it says


@pytest.mark.parametrize("supervise", ["last", "all"])
def test_tokens_are_those_of_the_template(supervise):
    tokenizer = tiny_tokenizer()
    rows = labelled({"messages": TURNS[1:], "id": "talk"}, "here", supervise, chat=True)
    found = encode(rows, tokenizer, max_length=500, chat=CHAT)
    ends = (2, 4) if supervise == "all" else (4,)
    for end, row, ids, cut in zip(ends, rows, found.input_ids, found.prompt_lengths, strict=True):
        asked = tokenizer.apply_chat_template(TURNS[1:end], tokenize=False, add_generation_prompt=True)
        assert list(ids)[:cut] == tokenizer(asked)["input_ids"]
        assert tokenizer.decode(list(ids)[cut:-1]) == row["answer"]


ROLES = (
    "{% for one in messages %}[{{ one.role }}]{{ one.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
KINDS = {
    "knows": (ROLES, "[system]Be short.[user]What is 1 + 1?"),
    "raises": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + ROLES,
        "[user]Be short.\n\nWhat is 1 + 1?",
    ),
    "passes over": (
        ROLES.replace("for one in messages", "for one in messages if one.role != 'system'"),
        "[user]Be short.\n\nWhat is 1 + 1?",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_system_says_has_one_form_in_all_rows_of_a_conversation(kind):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template, begins = KINDS[kind]
    first, second = labelled({"messages": TURNS}, "here", "all", chat=True)
    assert CHAT.prompt(tokenizer, first["prompt"]) == f"{begins}[assistant]"
    assert CHAT.prompt(tokenizer, second["prompt"]) == f"{begins}[assistant]2[user]And one more?[assistant]"


def test_a_template_that_takes_neither_form_is_refused_in_its_words():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(RequestError, match=r"does not take a conversation of user: never"):
        CHAT.prompt(tokenizer, packed(TURNS[:2]))


def test_nothing_is_folded_where_no_system_speaks():
    assert folded(TURNS[1:]) == TURNS[1:]
    assert folded(TURNS)[0] == {"role": "user", "content": "Be short.\n\nWhat is 1 + 1?"}
    assert folded(TURNS)[1:] == TURNS[2:]


def test_without_a_chat_template_they_are_refused_in_words():
    with pytest.raises(RequestError, match=r"here: 'messages'.*several turns.*model\.chat_template=true"):
        labelled({"messages": TURNS}, "here")


def test_ids_that_no_column_gives_differ(tmp_path: Path):
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps({"messages": TURNS}) + "\n" for _ in range(2)))
    ids = [row["id"] for row in from_file(file, split="train", supervise="all", chat=True)]
    assert len(set(ids)) == len(ids) == 4


def test_conversations_train_and_score(pkt, tiny_request, tmp_path: Path):
    talks = [
        [
            {"role": "user", "content": f"Ada has {i} apples."}, {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "How many?"}, {"role": "assistant", "content": f"{i}"},
        ]
        for i in range(24)
    ]  # fmt: skip
    for name, rows in (("train", talks[:16]), ("test", talks[16:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    words = [
        word for word in tiny_request if not word.startswith(("data.train=", "data.test=", "data.sizes"))
    ]
    words += [f"data.{name}={tmp_path / name}.jsonl" for name in ("train", "test")]
    words += ["model.chat_template=true", "data.sizes.validation=2", "method=semalign_joint"]
    done = pkt("run", *words, "data.supervise=all", "data.sizes.extract=4", "data.sizes.align=4")
    assert done.code == 0, done.err
    (scores,) = pkt.outputs.glob("runs/run/*/scores.json")
    assert "custom" in json.loads(scores.read_text())["scores"]["transferred"]
    told = next(pkt.outputs.glob("runs/run/*/config.yaml"))
    assert yaml.safe_load(told.read_text())["data"]["supervise"] == "all"
    wrong = pkt("transfer", *words[:-3], "method=sft")
    assert wrong.code == 2
    assert "several turns" in wrong.err
    assert "white space" not in wrong.err


@pytest.mark.parametrize("prompt", ["\x1d", "\x1d[1]", "\x1d{", "[{}]", "messages"])
def test_a_prompt_of_a_person_is_never_taken_for_several_messages(prompt):
    assert not is_packed(prompt)
    assert messages_of(prompt) == [{"role": "user", "content": prompt}]
