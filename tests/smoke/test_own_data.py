"""Files of rows as people have them, from the shell: each trains and scores, and says the same rows."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from cases import mostly_slow

ROWS = [{"prompt": f"Ada has {i % 12} apples. How many?\nResult:", "answer": f" {i % 12}"} for i in range(48)]
Make = Callable[[Path], Path]


def lines(shape: Callable[[dict[str, str]], dict[str, Any]], name: str = "rows.jsonl") -> Make:
    def write(folder: Path) -> Path:
        text = "\n".join(json.dumps(shape(row)) for row in ROWS)
        path = folder / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def table(folder: Path) -> Path:
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["question", "response"])
        out.writerows(row.values() for row in ROWS)
    return folder / "rows.csv"


def listed(folder: Path) -> Path:
    (folder / "rows.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    return folder / "rows.json"


def saved(folder: Path) -> Path:
    datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)).save_to_disk(folder / "saved")
    return folder / "saved"


def parquet(folder: Path) -> Path:
    datasets.Dataset.from_list(ROWS).to_parquet(str(folder / "rows.parquet"))
    return folder / "rows.parquet"


def tabs(folder: Path) -> Path:
    with (folder / "rows.tsv").open("w", encoding="utf-16", newline="") as file:
        out = csv.DictWriter(file, ["prompt", "answer"], delimiter="\t")
        out.writeheader()
        out.writerows(ROWS)
    return folder / "rows.tsv"


FORMS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "prompt and answer": (lines(dict), ()),
    "completion": (lines(lambda row: {"prompt": row["prompt"], "completion": row["answer"]}), ()),
    "messages": (
        lines(
            lambda row: {
                "messages": [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["answer"]},
                ]
            },
            "rows.jsonl.gz",
        ),
        (),
    ),
    "instruction": (
        lines(lambda row: {"instruction": row["prompt"], "input": "", "output": row["answer"]}),
        (),
    ),
    "csv with other names": (table, ("data.columns={prompt: question, answer: response}",)),
    "tsv": (tabs, ()),
    "a list": (listed, ()),
    "parquet": (parquet, ()),
    "save_to_disk": (saved, ()),
}


def run(pkt, tiny_request, path: Path, *more: str):
    words = [word for word in tiny_request if not word.startswith(("data.train", "data.test"))]
    test = path.parent / "test.jsonl"
    test.write_text(json.dumps({"prompt": "Ada has 3 apples.\nResult:", "answer": " 3"}), encoding="utf-8")
    result = pkt("run", *words, "method=sft", f"data.train={path}", f"data.test={test}", *more)
    assert result.code == 0, result.err
    (metrics,) = (pkt.outputs / "store" / "transfer").glob("*/metrics.json")
    return result, json.loads(metrics.read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", mostly_slow(FORMS, lambda form: "csv" in form))
def test_a_file_trains_and_scores(pkt, tiny_request, tmp_path: Path, form: str):
    make, words = FORMS[form]
    result, metrics = run(pkt, tiny_request, make(tmp_path), *words)
    assert "student + sft" in result.out
    assert metrics["budget"]["train_rows"] == 16
    assert metrics["history"]["validations"][-1]["cross_entropy"] > 0


@pytest.mark.slow
def test_every_token_of_a_text_is_learned(pkt, tiny_request, tmp_path: Path):
    path = lines(lambda row: {"text": row["prompt"] + row["answer"]})(tmp_path)
    _, metrics = run(pkt, tiny_request, path)
    assert metrics["budget"]["train_rows"] == 16
    for named in (f"data.train={path}", f"data.test={path}"):
        result = pkt("run", *tiny_request, "method=sft", named, "model.chat_template=true")
        assert result.code == 2
        assert "is a text without a prompt, which no chat template takes" in result.err
