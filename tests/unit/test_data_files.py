"""Files of rows in all their forms: what is valid is read exactly, what is not is refused by line and column."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pkt.data.files import read
from pkt.data.rows import from_file
from pkt.data.shapes import labelled
from pkt.errors import RequestError
from suite_files import gsm8k

SEPARATORS = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\x00j\ufeffk\r\nl"


def row(index: int, **fields):
    return {"prompt": f"p{index}", "answer": f" a{index}", "id": f"r{index}", **fields}


def lines(*rows, ascii=False, end="\n") -> bytes:
    return "".join(json.dumps(r, ensure_ascii=ascii) + end for r in rows).encode()


PLAIN = [row(0), row(1, prompt=SEPARATORS), row(2, answer=f" {SEPARATORS}")]
BYTES = lines(*PLAIN)


@pytest.mark.parametrize(
    "content",
    [
        BYTES,
        lines(*PLAIN, ascii=True),
        lines(*PLAIN, end="\r\n"),
        lines(*PLAIN, end="\r"),
        lines(*PLAIN, end="\n \t\n\n"),
        BYTES.rstrip(b"\n"),
        b"\xef\xbb\xbf" + BYTES,
        lines(*PLAIN[:1]) + b"\xef\xbb\xbf" + lines(*PLAIN[1:]),  # two files put together
        BYTES.decode().encode("utf-16"),
        BYTES.decode().encode("utf-16-be"),
        BYTES.decode().encode("utf-32"),
        json.dumps(PLAIN).encode(),
        json.dumps(PLAIN, indent=2).encode(),
        gzip.compress(BYTES, mtime=0),
        gzip.compress(lines(PLAIN[0]), mtime=0) + gzip.compress(lines(*PLAIN[1:]), mtime=0),
        pa.compress(BYTES, codec="zstd", asbytes=True),
    ],
)
def test_every_form_of_valid_json_is_read_exactly(tmp_path: Path, content: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert from_file(path, split="train") == [{**one, "split": "train"} for one in PLAIN]


UNREAD = [
    '"x": 123456789012345678901234567890',
    f'"x": {"9" * 9000}',
    '"x": NaN, "y": -Infinity, "z": 1e999',
    '"x": [1, "a", null, {"prompt": 3, "prompt": 4}]',
    '"x": "\\ud800"',
    '"": 1, "x": 1, "x": 2',
    f'"x": {"[" * 400}{"]" * 400}',
]


@pytest.mark.parametrize("column", UNREAD)
def test_a_column_that_is_not_used_decides_nothing(tmp_path: Path, column: str):
    path = tmp_path / "rows.jsonl"
    text = json.dumps(row(0))[:-1] + f", {column}}}\n" + json.dumps(row(1, x=None)) + "\n"
    path.write_text(text, encoding="utf-8")
    assert [one["id"] for one in from_file(path, split="train")] == ["r0", "r1"]


def test_parquet_with_unusual_columns(tmp_path: Path):
    texts = [one["prompt"] for one in PLAIN]
    table = pa.table(
        {
            "prompt": pa.array(texts, pa.large_string()),
            "answer": pa.array([one["answer"] for one in PLAIN]).dictionary_encode(),
            "id": [one["id"] for one in PLAIN],
            "when": pa.array([2**62] * 3, pa.timestamp("ms")),  # beyond what Python's dates hold
            "parts": pa.array([{"prompt": 1}, None, {"prompt": 2}]),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    assert from_file(tmp_path / "rows.parquet", split="train") == [{**r, "split": "train"} for r in PLAIN]


GOOD = json.dumps(row(0)).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD + b'\n{"prompt": "p", }\n', r"t\.jsonl, line 2, column 17: not JSON"),
        (GOOD + b"\r{'prompt'}\r", r"line 2, column 2: not JSON"),
        (b"[\n" + GOOD + b",\n]", "line 3, column 1: not JSON"),
        (GOOD[:-1] + b', "note": "a\x0bb"}', r"line 1, column \d+: not JSON \(Invalid control"),
        (GOOD + b"\n" + GOOD.replace(b"p0", b"caf\xe9"), r"line 2: byte 61 of the file \(0xe9\) is not UTF-8.*iconv"),
        (GOOD.replace(b"p0", b"\\ud800x"), r"line 1: 'prompt' holds \\ud800 at character 1"),
        (GOOD.replace(b'"r0"', b"true"), "line 1: 'id' is bool, not a string"),
        (GOOD.replace(b'" a0"', b"null"), "line 1: 'answer' is null; a row has prompt and answer"),
        (GOOD.replace(b'" a0"', b"7"), "line 1: 'answer' is int, not a string"),
        (GOOD.replace(b'"r0"', b'"r0", "id": "r1"'), "line 1: 'id' stands twice in one object"),
        (b'{"x": ' + b"[" * 99999, "line 1: nested too deeply"),
        ("{'prompt'}\u2028".encode(), "line 1, column 2: not JSON"),
        ("\u2028\n".encode() + GOOD, "line 1, column 1: not JSON"),
        (b"prompt,answer,id\np,a,1\n", "line 1, column 1: not JSON"),
        (gzip.compress(GOOD * 99, mtime=0)[:-20], "cannot be read"),
        (b"\xef\xbb\xbf\n", "has no rows"),
        (b"PAR1 and more", "the parquet file cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_place(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=says):
        from_file(path, split="train")


def test_parquet_that_is_none_or_has_a_column_twice(tmp_path: Path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"")
    with pytest.raises(RequestError, match="parquet file cannot be read"):
        list(read(path))
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, path)
    with pytest.raises(RequestError, match="several columns 'prompt'"):
        list(read(path, ("prompt",)))
    pq.write_table(pa.table({"prompt": pa.array([b"a\xff"]), "answer": ["b"], "id": ["c"]}), path)
    with pytest.raises(RequestError, match="row 1: 'prompt' is bytes, not a string"):
        from_file(path, split="train")


def test_published_sets_are_read_in_the_same_way(tmp_path: Path):
    from pkt.data.upstream import required
    from pkt.tasks.gsm8k import Gsm8k

    docs = gsm8k(3)
    docs[1]["question"] = SEPARATORS
    content = "\ufeff" + "\r\n".join(json.dumps({**doc, "n": 2**80}, ensure_ascii=False) for doc in docs)
    (tmp_path / "train.jsonl").write_text(content, encoding="utf-8", newline="")
    assert required(Gsm8k.upstream, "train", str(tmp_path)) == docs
    (tmp_path / "test.jsonl").write_text(json.dumps({**docs[0], "answer": 4}), encoding="utf-8")
    with pytest.raises(RequestError, match=r"test\.jsonl, line 1: 'answer' is int, not a string"):
        required(Gsm8k.upstream, "test", str(tmp_path))
    (tmp_path / "dev.jsonl").write_text("\n")
    with pytest.raises(RequestError, match=r"dev\.jsonl: the file has no rows"):
        required(Gsm8k.upstream, "dev", str(tmp_path))


def test_unused_columns_of_a_code_set_are_not_read(tmp_path: Path):
    from pkt.tasks.humaneval import _code_docs

    codes = [f"def f{n}(x):\n    return x + {n}" for n in range(3)]
    table = pa.table(
        {"problem": ["Add."] * 3, "solution": codes, "when": pa.array([2**62] * 3, pa.timestamp("ms"))}
    )
    pq.write_table(table, tmp_path / "train.parquet")
    assert len(_code_docs(str(tmp_path), None)) == 3


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (bz2.compress(BYTES), "bzip2"),
        (lzma.compress(BYTES), "xz"),
        (b"PK\x03\x04" + BYTES, "zip archive"),
        (gzip.compress(gzip.compress(BYTES)), "packed twice with gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"ARROW1\x00\x00", "Arrow"),
    ],
)
def test_a_file_of_another_form_is_called_by_its_name(tmp_path, data, told):
    file = tmp_path / "train.jsonl"
    file.write_bytes(data)
    with pytest.raises(RequestError, match=rf"train\.jsonl: this is .*{told}"):
        from_file(file, split="train")


def test_a_folder_in_a_files_place_is_called_one(pkt, tmp_path):
    end = pkt("run", "benchmark=custom", f"data.train={tmp_path}", f"data.test={tmp_path}")
    assert end.code == 2
    assert f"there is none at {tmp_path} (that is a folder)" in end.err
    assert "did you mean" not in end.err


@pytest.mark.parametrize(("end", "sign"), [("csv", ";"), ("csv", "|"), ("csv", "\t"), ("tsv", ",")])
def test_a_table_with_another_separator_is_told(tmp_path, end, sign):
    file = tmp_path / f"rows.{end}"
    file.write_text(f"prompt{sign}answer\nQ: 1?{sign} 2\n", encoding="utf-8")
    with pytest.raises(
        RequestError, match=r"one column, .* separated by commas in \.csv and by tabs in \.tsv"
    ):
        list(read(file))


def test_the_first_row_of_a_parquet_file_names_the_columns_that_were_not_read(tmp_path: Path):
    table = pa.table({"question": ["q", "r"], "answer": ["a", "b"], "n": [1, 2]})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = [row for _, row in read(tmp_path / "rows.parquet", ("prompt", "answer"))]
    assert rows == [{"question": None, "answer": "a", "n": None}, {"answer": "b"}]
    with pytest.raises(RequestError, match=r"row 1: 'prompt' is missing; .*has question, answer, n\."):
        labelled(rows[0], "row 1")
