"""Rows as people have them: shapes, names of columns, tables, folders and the hub; each says the same rows."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from pkt.data import prompts, rows
from pkt.errors import RequestError
from pkt.foreign import network_errors

TEXTS = [(f'Ada, "{i}", has:\n{i} apples.', f" {i},\u2028yes" if i else " none\n") for i in range(4)]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


SHAPES: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "answer": lambda prompt, answer: {"prompt": prompt, "answer": answer},
    "completion": lambda prompt, answer: {"prompt": prompt, "completion": answer, "text": 7},
    "messages": lambda prompt, answer: {"messages": [said("user", prompt), said("assistant", answer)]},
    "lists": lambda prompt, answer: {
        "prompt": [said("user", prompt)],
        "completion": [said("assistant", answer)],
    },
    "instruction": lambda prompt, answer: {"instruction": prompt, "output": answer, "input": ""},
    "conversations": lambda prompt, answer: {
        "conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}],
    },
}


def write_lines(folder: Path, found: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return path


def write_table(folder: Path, found: list[dict[str, Any]], name: str = "rows.csv", mark: str = ",") -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, list(found[0]), delimiter=mark)
        table.writeheader()
        table.writerows(found)
    return path


def read(path: Path | str, **more: Any) -> list[tuple[str, str]]:
    return [(row["prompt"], row["answer"]) for row in rows.from_file(path, split="train", **more)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_says_prompt_and_answer(tmp_path: Path, shape: str):
    assert read(write_lines(tmp_path, [SHAPES[shape](*texts) for texts in TEXTS])) == TEXTS


def test_parts_of_a_prompt_stand_below_each_other(tmp_path: Path):
    found = [
        {"messages": [said("system", "Be kind."), said("user", "Hi."), said("assistant", "Hello.")]},
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"text": "All of it."},
    ]
    expected = [("Be kind.\n\nHi.", "Hello."), ("Add.\n\n1 and 2", "3"), ("", "All of it.")]
    assert read(write_lines(tmp_path, found)) == expected


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.tsv", "\t"), ("rows.csv.gz", ",")])
def test_tables(tmp_path: Path, name: str, mark: str):
    path = write_table(tmp_path, [SHAPES["answer"](*texts) for texts in TEXTS], name, mark)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert read(path) == TEXTS


def test_texts_of_a_table_may_be_long(tmp_path: Path):
    path = write_table(tmp_path, [{"prompt": "p", "answer": "a" * 200_000}])
    before = csv.field_size_limit()
    assert [len(answer) for _, answer in read(path)] == [200_000]
    assert csv.field_size_limit() == before


def test_columns_have_other_names(tmp_path: Path):
    found = [
        {"question": prompt, "reply": answer, "text": "t", "key": i}
        for i, (prompt, answer) in enumerate(TEXTS)
    ]
    columns = {"prompt": "question", "answer": "reply", "id": "key"}
    for path in (write_lines(tmp_path, found), write_table(tmp_path, found)):
        got = rows.from_file(path, split="test", columns=columns)
        assert [(row["id"], row["prompt"], row["answer"]) for row in got] == [
            (str(i), *texts) for i, texts in enumerate(TEXTS)
        ]
    asked = prompts.from_file(write_lines(tmp_path, found), columns)
    assert [row["prompt"] for row in asked] == [prompt for prompt, _ in TEXTS]


def test_ids_are_made_of_the_content(tmp_path: Path):
    found = [{"prompt": "p", "answer": str(i)} for i in (1, 2, 2)]
    first, second = (
        {row["id"]: row["answer"] for row in rows.from_file(write_lines(tmp_path, some), split="train")}
        for some in (found, found[::-1])
    )
    assert first == second
    assert len(first) == 3


def test_saved_sets(tmp_path: Path):
    made = datasets.Dataset.from_list([SHAPES["instruction"](*texts) | {"n": 1} for texts in TEXTS])
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=made, test=made.select([0])).save_to_disk(tmp_path / "several")
    assert read(tmp_path / "one") == read(tmp_path / "several") == TEXTS
    assert len(rows.from_file(tmp_path / "several", split="test")) == 1
    with pytest.raises(RequestError, match=r"data\.align=.*no split 'align'; it has train, test"):
        rows.from_file(tmp_path / "several", split="align")
    (tmp_path / "none").mkdir()
    with pytest.raises(RequestError, match="a folder, and none of datasets' save_to_disk"):
        read(tmp_path / "none")


def test_the_hub(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load(name: str, config: str | None) -> Any:
        asked.append((name, config))
        return {"train": datasets.Dataset.from_list([SHAPES["answer"](*texts) for texts in TEXTS])}

    monkeypatch.setattr(datasets, "load_dataset", load)
    for named in ("hub:org/sums", "hub:org/sums:main", "hub:org/sums::train"):
        assert read(named) == TEXTS
    assert asked == [("org/sums", None), ("org/sums", "main"), ("org/sums", None)]
    with pytest.raises(
        RequestError, match=r"no split 'dev'; it has train \(name one: hub:org/name:config:split\)"
    ):
        read("hub:org/sums:main:dev")
    with pytest.raises(RequestError, match="write hub:org/name"):
        read("hub:a:b:c:d")


@pytest.mark.parametrize("error", network_errors(), ids=lambda own: own.__name__)
def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    def load(*_: Any) -> Any:
        raise error.__new__(error, "no route")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        RequestError, match=r"data\.train=hub:org/sums: not to be had from the hub: .*name a file"
    ):
        read("hub:org/sums")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"prompt": "p"}, "'answer' is missing; a row has prompt and answer"),
        ({"prompt": "p", "answers": "a"}, r"'answer' is missing \(did you mean 'answers'\?\)"),
        ({"instruction": "p"}, "'output' is missing"),
        ({"prompt": "p", "completion": None}, "'completion' is null"),
        ({"conversations": [{"from": ["x"], "value": "a"}]}, "'conversations': a conversation of"),
        ({"question": "p", "n": 1}, r"'prompt' is missing; .*data.columns=.*\. This one has question, n\."),
        ({f"c{n}": "p" for n in range(14)}, r".* This one has c0, .*c11 and 2 more\."),
        ({}, ".* This one has nothing"),
        ({"text": ""}, "'text' is empty"),
        ({"prompt": "p", "completion": ["a"]}, "'completion' is list, not a string"),
        ({"messages": "hi"}, "'messages': a list of objects with role and content"),
        ({"messages": []}, "'messages': a conversation of nothing"),
        (
            {"messages": [said("user", "a"), said("user", "b"), said("assistant", "c")]},
            "'messages': a conversation of user, user, assistant; user and assistant in turn",
        ),
        (
            {"messages": [said("user", "a"), {"role": "assistant", "content": None}]},
            "'messages', assistant: 'content' is null, not a string",
        ),
    ],
)
def test_what_has_no_shape_is_told(tmp_path: Path, found: dict[str, Any], says: str):
    with pytest.raises(RequestError, match=rf"line 1: {says}"):
        read(write_lines(tmp_path, [found]))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"instruction": "question"},
            "no column 'question', which data.columns names; it has prompt, answer",
        ),
        ({"promt": "question"}, r"'promt' is no column that data\.train reads; .*did you mean 'prompt'"),
    ],
)
def test_columns_that_are_none(tmp_path: Path, columns: dict[str, str], says: str):
    with pytest.raises(RequestError, match=says):
        read(write_lines(tmp_path, [SHAPES["answer"](*TEXTS[0])]), columns=columns)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt,answer\np,a,b\n", "line 2: 3 values under 2 names; put a text with a comma"),
        ("prompt,prompt\np,a\n", "several columns 'prompt'"),
        ('prompt,answer\n"p"x,a\n', "line 2: not a table"),
        ("prompt,answer\np,\n", "line 2: 'answer' is null"),
        ('prompt,answer\n"p\nq",a\n\n"p\nq",\n', "line 5: 'answer' is null"),
        ("prompt,answer\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_what_is_wrong_in_a_table(tmp_path: Path, text: str, says: str):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=says):
        read(tmp_path / "t.csv")
