"""Rows are checked where they enter, and splits are disjoint, sized and reproducible."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest

from pkt.config import SPLITS, BenchmarkConfig, DataConfig, SplitSizes
from pkt.data.rows import fingerprint, from_file, validate
from pkt.errors import RequestError
from pkt.tasks import splits
from pkt.tasks.base import Given, RowTask
from pkt.tasks.find import find
from pkt.tasks.grading import Grading, Likelihood
from scoring import rows_of


def row(index: int, **fields):
    return {"id": f"r{index}", "split": "train", "prompt": f"p{index}", "answer": f" a{index}", **fields}


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_only_the_columns_that_are_used_decide():
    table = validate([row(0), row(1, label="b", size=2**70), row(2, label=1, nested={"a": [1, "b"]})])
    assert [list(own) for own in table] == [["prompt", "answer", "id", "split"]] * 3
    assert table["id"] == ["r0", "r1", "r2"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no rows"),
        ([row(0), {"id": "x", "split": "train", "prompt": "p"}], "row 2: 'answer' is missing"),
        ([{**row(0), "prompt": 3}], "row 1: 'prompt' is int, not a string"),
        ([row(0, answer="")], "row 1: 'answer' is empty"),
        ([row(0), row(1), row(0)], "id 'r0' occurs in rows 1 and 3"),
    ],
)
def test_bad_rows(rows, says):
    with pytest.raises(RequestError, match=says):
        validate(rows)


def test_rows_of_a_file(tmp_path):
    path = write(tmp_path / "t.jsonl", [row(0), row(1, extra=5)])
    path.write_text(path.read_text() + "\n\n")
    assert from_file(path, split="align") == [row(0, split="align"), row(1, split="align")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        ('{"prompt": "p"', r"t\.jsonl, line 1, column 15: not JSON"),
        ("[1]", "row 1: int, not an object"),
        ("3", "line 1: int, not an object"),
        (
            '\n{"prompts": "p", "answer": "a", "id": "1"}',
            r"line 2: 'prompt' is missing \(did you mean 'prompts'\?\)",
        ),
        ('{"prompt": "p", "answer": "a", "id": 1.5}', "line 1: 'id' is float, not a string"),
        ('{"prompt": "p", "answer": "a", "id": "1"}\n' * 2, "line 2: id '1' is already on line 1"),
    ],
)
def test_bad_jsonl(tmp_path, text, says):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(RequestError, match=says):
        from_file(tmp_path / "t.jsonl", split="train")


def test_equal_rows_without_ids_are_numbered_in_linear_time(tmp_path):
    rows = [{"prompt": "p", "answer": " a"}] * 20_000 + [{"prompt": "p", "answer": " a", "id": "own"}]
    began = time.process_time()
    names = [one["id"] for one in from_file(write(tmp_path / "t.jsonl", rows), split="train")]
    assert time.process_time() - began < 20  # in quadratic time minutes
    assert names[1:3] == [f"{names[0]}-2", f"{names[0]}-3"]
    assert names[-2:] == [f"{names[0]}-20000", "own"]


def test_missing_file():
    with pytest.raises(RequestError, match=r"data\.train=nowhere\.jsonl: no file at .*nowhere"):
        from_file("nowhere.jsonl", split="train")


def test_fingerprint_follows_content_and_order():
    rows = [row(0), row(1)]
    first = fingerprint(validate(rows))
    assert fingerprint(rows) == first
    assert fingerprint([{k: rows[0][k] for k in reversed(rows[0])}, rows[1]]) == first
    assert fingerprint(rows[::-1]) != first
    assert fingerprint([row(0), row(1, answer=" b")]) != first


def custom(**fields) -> dict:
    data = DataConfig(**fields)
    return splits.load_splits(Given(benchmark=BenchmarkConfig(name="custom", tasks=["custom"]), data=data))


def test_custom_splits_are_cut_disjointly_from_train(tmp_path):
    path = write(tmp_path / "train.jsonl", [row(i) for i in range(80)])
    sizes = SplitSizes(extract=5, align=100, train=1000, validation=8)
    found = custom(train=str(path), sizes=sizes)
    assert {name: len(table) for name, table in found.items()} == {
        "extract": 5, "align": 10, "train": 57, "validation": 8,
    }  # fmt: skip
    ids = [i for table in found.values() for i in table["id"]]
    assert sorted(ids) == sorted(f"r{i}" for i in range(80))
    assert set(found["align"]["split"]) == {"align"}
    assert found["train"]["id"] == sorted(found["train"]["id"], key=lambda i: int(i[1:]))
    write(path, [row(i) for i in reversed(range(80))])
    again = custom(train=str(path), sizes=sizes)
    assert {k: set(v["id"]) for k, v in again.items()} == {k: set(v["id"]) for k, v in found.items()}
    assert set(custom(train=str(path), sizes=sizes, shuffle_seed=1)["align"]["id"]) != set(
        found["align"]["id"]
    )


def test_custom_files_are_used_as_they_are(tmp_path):
    files = {
        split: str(write(tmp_path / f"{split}.jsonl", [row(i, prompt=split) for i in range(9)]))
        for split in ("train", "extract", "align", "validation", "test")
    }
    found = custom(**files)
    for split in SPLITS:
        assert found[split]["prompt"] == [split] * 9
    assert [row["prompt"] for row in rows_of("custom", data=DataConfig(**files))] == ["test"] * 9


def test_custom_requests_are_checked(tmp_path):
    with pytest.raises(RequestError, match=r"data\.train="):
        custom()
    path = write(tmp_path / "train.jsonl", [row(i) for i in range(5)])
    with pytest.raises(RequestError, match=r"has 5 rows; extract, align, validation are cut .* 8 or more"):
        custom(train=str(path))
    with pytest.raises(RequestError, match=r"data\.test="):
        rows_of("custom", data=DataConfig(train=str(path)))


@dataclass(frozen=True, kw_only=True)
class Toy(RowTask):
    version: ClassVar[int] = 1
    gradings: ClassVar[tuple[Grading, ...]] = (Likelihood(),)
    size: int = 50

    def rows(self, split, given):
        return [row(i, id=f"toy/{split}/{i}", split=split) for i in range(self.size)]


@pytest.fixture
def toy(monkeypatch):
    made = {"toy": Toy(name="toy"), "empty": Toy(name="empty", size=0)}
    monkeypatch.setattr(splits, "find", lambda name, _path: made.get(name) or find(name))
    return BenchmarkConfig(name="toys", tasks=["toy"])


def test_splits_have_the_sizes_asked_for(toy):
    found = splits.load_splits(
        Given(benchmark=toy, data=DataConfig(sizes=SplitSizes(extract=2, align=4, train=100, validation=6)))
    )
    assert {name: len(table) for name, table in found.items()} == {
        "extract": 2, "align": 4, "train": 50, "validation": 6,
    }  # fmt: skip
    assert found["align"]["id"] == [f"toy/align/{i}" for i in range(4)]


def test_shuffling_draws_from_all_rows(toy):
    sizes = SplitSizes(extract=2, align=4, train=10, validation=6)
    draw = [
        splits.load_splits(Given(benchmark=toy, data=DataConfig(sizes=sizes, shuffle_seed=s)))["train"]["id"]
        for s in (0, 0, 1)
    ]
    assert draw[0] == draw[1] != draw[2]
    assert len(set(draw[0])) == 10
    assert max(int(i.rsplit("/")[-1]) for i in draw[0]) >= 10


def test_split_requests_are_checked(toy):
    with pytest.raises(
        RequestError, match=r"no task 'nano_mth' \(did you mean 'nano_math'\?\); tasks are custom, gsm8k, "
    ):
        splits.load_splits(Given(benchmark=BenchmarkConfig(name="b", tasks=["nano_mth"]), data=DataConfig()))
    with pytest.raises(RequestError, match="b/extract: no rows"):
        splits.load_splits(Given(benchmark=BenchmarkConfig(name="b", tasks=["empty"]), data=DataConfig()))
    with pytest.raises(RequestError, match="tasks is empty"):
        splits.load_splits(Given(benchmark=BenchmarkConfig(name="b", tasks=[]), data=DataConfig()))
    with pytest.raises(RequestError, match="train is empty"):
        splits.load_splits(
            Given(benchmark=BenchmarkConfig(name="b", tasks=["toy"], train=[]), data=DataConfig())
        )
    with pytest.raises(RequestError, match="occurs in rows"):
        splits.load_splits(
            Given(benchmark=BenchmarkConfig(name="b", tasks=["toy", "toy"]), data=DataConfig())
        )


def test_what_is_trained_on_and_what_is_scored_are_two_lists(toy):
    sizes = SplitSizes(extract=2, align=2, train=3, validation=2)
    bench = BenchmarkConfig(name="b", tasks=["nano_math"], train=["toy"])
    found = splits.load_splits(
        Given(benchmark=bench, data=DataConfig(sizes=sizes, extract_tasks=["nano_code"]))
    )
    origin = {split: {row_id.partition("/")[0] for row_id in table["id"]} for split, table in found.items()}
    assert origin == {"extract": {"nano_code"}, "align": {"toy"}, "train": {"toy"}, "validation": {"toy"}}


def test_nano_tasks_make_one_benchmark():
    sizes = SplitSizes(extract=2, align=2, train=3, validation=2)
    bench = BenchmarkConfig(name="nano", tasks=["nano_knowledge", "nano_math", "nano_code", "nano_program"])
    found = splits.load_splits(Given(benchmark=bench, data=DataConfig(sizes=sizes)))
    assert len(found["train"]) == 12
    assert len(set(found["train"]["id"])) == 12
    every = splits.load_splits(Given(benchmark=bench, data=DataConfig(sizes=SplitSizes(extract=999))))
    assert len(every["extract"]) == 4 * 32
