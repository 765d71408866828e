"""Small files in the upstream formats of the real benchmarks, made by the tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

Docs = list[dict[str, Any]]


def write(path: Path, docs: Docs) -> Path:
    """Write rows in the format that the name's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(map(json.dumps, docs)) + "\n"
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(docs), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(json.dumps(docs) if path.suffix == ".json" else lines, encoding="utf-8")
    return path


def gsm8k(count: int, start: int = 0) -> Docs:
    """Return word problems with calculator marks."""
    return [
        {
            "question": f"Ada has {n} apples and buys 2. How many?",
            "answer": f"She has {n}+2 = <<{n}+2={n + 2}>>{n + 2} apples.\n#### {n + 2}",
        }
        for n in range(start, start + count)
    ]


def mmlu(count: int, subject: str, start: int = 0) -> Docs:
    """Return questions of a subject ("" in auxiliary_train)."""
    return [
        {
            "question": f" {subject} question {n}? ",
            "subject": subject,
            "choices": ["red", "green", "blue", f"grey {n}"],
            "answer": n % 4,
        }
        for n in range(start, start + count)
    ]


def mbpp(first: int, last: int) -> Docs:
    """Return programs with these task ids."""
    return [
        {
            "task_id": n,
            "text": f"Write a function to add {n}.",
            "code": f"def add{n}(x):\r\n  return x + {n} ",
            "test_list": [f"assert add{n}({k}) == {k + n}" for k in range(3)],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for n in range(first, last + 1)
    ]


def humaneval(count: int) -> Docs:
    """Return functions to complete."""
    return [
        {
            "task_id": f"HumanEval/{n}",
            "prompt": f'def f{n}(x):\n    """ Add {n}.\n    """\n',
            "canonical_solution": f"    return x + {n}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {1 + n}\n",
            "entry_point": f"f{n}",
        }
        for n in range(count)
    ]


def all_suites(folder: Path) -> Path:
    """Write all four sets and a code set below one folder, each in another layout."""
    write(folder / "gsm8k" / "train.jsonl", gsm8k(40))
    write(folder / "gsm8k" / "test.jsonl", gsm8k(4, start=100))
    hub = folder / "cais" / "mmlu" / "all"
    write(hub / "auxiliary_train-00000-of-00001.parquet", mmlu(40, ""))
    write(hub / "dev-00000-of-00001.parquet", mmlu(5, "anatomy", 100) + mmlu(5, "virology", 100))
    write(hub / "validation-00000-of-00001.parquet", mmlu(6, "anatomy", 200))
    write(hub / "test-00000-of-00001.parquet", mmlu(3, "anatomy", 300) + mmlu(2, "virology", 300))
    write(folder / "mbpp.jsonl", mbpp(1, 974))
    write(folder / "humaneval" / "HumanEval.jsonl.gz", humaneval(3))
    code = [
        {"instruction": f"Add {n}.", "input": "", "output": f"def g{n}(x):\n    return x + {n}"}
        for n in range(20)
    ]
    write(folder / "python_code_instructions_18k_alpaca" / "data" / "train-0-of-1.parquet", code)
    return folder
