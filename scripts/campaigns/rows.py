"""Files of rows, as they come: what is valid is read exactly, what is not is refused by file and place.

    rows -> lines of JSON -> a form (encoding, line ends, packing, list, parquet) -> read == the json module, by line
                          -> a fault on some line                                 -> exit code 2, nothing written

The reference knows nothing of pkt: it splits at LF alone and gives each line to `json.loads`.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from campaigns.trials import Trial, Verdict
from pkt.cli import main
from pkt.config import BenchmarkConfig, DataConfig
from pkt.errors import PktError
from pkt.tasks.base import Given
from pkt.tasks.find import find

COUNT = 150
COLUMNS = {"custom": ("prompt", "answer", "id"), "gsm8k": ("question", "answer")}
TEXTS = [
    "plain", "a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb\x0cc", "a\x1cb\x1dc\x1ed\x1fe", "a\x00b", "a\r\nb\rc\n",
    "\ttab ", "\ufeffmark", "a\ufffe\uffffb", "😀", "e\u0301 \u0627\u0644 \u200f\u202e", '"quoted" \\ / \\n', "{[,]}",
    "\u00a0\u3000 wide",
    "\U0010ffff", "x" * 300_000, "</s><eos><s>", "NaN", "ａ\u00ad\u200b",
]  # fmt: skip
UNREAD = [
    '"x": 1', f'"x": {2**70}', f'"x": -{"7" * 6000}', '"x": NaN', '"x": [Infinity, -Infinity]', '"x": null',
    '"x": "\\ud800"', '"x": {"prompt": 1, "id": [2, "b", {}]}', '"x": 1e999',
    '"x": true', '"x": ""', '"": 0', f'"x": {"[" * 200}{"]" * 200}',
]  # fmt: skip
Rows = list[dict[str, Any]]


def reference(text: str) -> Rows:
    """Return the rows of plain JSON Lines; whole numbers stay as they are written, as Python limits their length."""
    return [json.loads(line, parse_int=str) for line in text.split("\n") if line.strip(" \t\r")]


def _table(rows: Rows, how: Callable[[list[str]], Any]) -> bytes:
    """Return rows as parquet, beside columns that nothing reads."""
    columns = {key: how([row[key] for row in rows]) for key in rows[0] if key in _READ}
    columns["when"] = pa.array([2**62] * len(rows), pa.timestamp("ms"))
    columns["parts"] = pa.array([{"id": None, "n": [index]} for index in range(len(rows))])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


_READ = {column for columns in COLUMNS.values() for column in columns}


def _large(column: list[str]) -> Any:
    return pa.array(column, pa.large_string())


def _dictionary(column: list[str]) -> Any:
    return pa.array(column).dictionary_encode()


def _marked(text: str) -> bytes:
    """Return a text as if each of its lines had been a file with a byte order mark."""
    return "".join(f"\ufeff{line}\n" for line in text.split("\n") if line).encode()


# name -> (suffix, how plain JSON Lines become the file)
FORMS: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "plain": (".jsonl", lambda text: text.encode()),
    "no last line end": (".jsonl", lambda text: text.rstrip("\n").encode()),
    "CRLF": (".jsonl", lambda text: text.replace("\n", "\r\n").encode()),
    "CR": (".jsonl", lambda text: text.replace("\n", "\r").encode()),
    "blank lines": (".jsonl", lambda text: ("\n \t\n" + text.replace("\n", "\n\n")).encode()),
    "UTF-8 with a mark": (".jsonl", lambda text: text.encode("utf-8-sig")),
    "files put together": (".jsonl", _marked),
    "UTF-16": (".jsonl", lambda text: text.encode("utf-16")),
    "UTF-16, big end first, no mark": (".jsonl", lambda text: text.encode("utf-16-be")),
    "UTF-32": (".jsonl", lambda text: text.encode("utf-32")),
    "a list": (".json", lambda text: f"[{','.join(filter(None, text.split(chr(10))))}]".encode()),
    "an indented list": (".json", lambda text: ("\ufeff[\n  " + ",\n  ".join(text.split("\n")[:-1]) + "\n]").encode()),
    "gzip": (".jsonl.gz", lambda text: gzip.compress(text.encode())),
    "gzip in two members": (
        ".jsonl.gz",
        lambda text: b"".join(gzip.compress(part.encode()) for part in text.splitlines(True)),
    ),
    "zstd": (".jsonl.zst", lambda text: pa.compress(text.encode(), codec="zstd", asbytes=True)),
    "parquet": (".parquet", lambda text: _table(reference(text), pa.array)),
    "parquet, large texts": (".parquet", lambda text: _table(reference(text), _large)),
    "parquet, dictionaries": (".parquet", lambda text: _table(reference(text), _dictionary)),
}  # fmt: skip
# name -> the line that is put in a good line's place
FAULTS: dict[str, Callable[[str], bytes]] = {
    "a trailing comma": lambda line: line[:-1].encode() + b",}",
    "cut off": lambda line: line[: len(line) // 2].encode(),
    "two objects": lambda line: f"{line} {line}".encode(),
    "single quotes": lambda line: b"{'prompt': 'a'}",
    "a list": lambda line: f"[{line}]".encode(),
    "a number": lambda line: b"17",
    "a text": lambda line: b'"prompt"',
    "no JSON": lambda line: b"prompt,answer,id",
    "a vertical tab that is not escaped": lambda line: line[:-1].encode() + b', "y": "a\x0bb"}',
    "a NUL": lambda line: line.encode() + b"\x00",
    "Latin-1": lambda line: line[:-1].encode() + ', "y": "café"}'.encode("latin-1"),
    "Windows-1252": lambda line: line[:-1].encode() + ', "y": "“so”"}'.encode("cp1252"),
    "a line separator behind it": lambda line: f"{line}\u2028{line}".encode(),
    "a line of separators": lambda line: "\u2028\u0085".encode(),
    "too deep": lambda line: line[:-1].encode() + b', "y": ' + b"[" * 99_999,
    "half a surrogate": lambda line: line.replace('"answer": "', '"answer": "\\ud800').encode(),
    "no answer": lambda line: line.replace('"answer"', '"anwser"').encode(),
    "answer is null": lambda line: re.sub(r'"answer": "[^"]*"', '"answer": null', line).encode(),
    "answer is a number": lambda line: re.sub(r'"answer": "[^"]*"', '"answer": 4', line).encode(),
    "answer is a list": lambda line: re.sub(r'"answer": "[^"]*"', '"answer": ["4"]', line).encode(),
    "an answer twice": lambda line: line[:-1].encode() + b', "answer": "b"}',
}
ONLY_CUSTOM: dict[str, Callable[[str], bytes]] = {
    "a number as id": lambda line: re.sub(r'"id": "[^"]*"', '"id": 7', line).encode(),
    "an id of another row": lambda line: re.sub(r'"id": "[^"]*"', '"id": "0"', line).encode(),
    "an empty answer": lambda line: re.sub(r'"answer": "[^"]*"', '"answer": ""', line).encode(),
    "an empty prompt": lambda line: re.sub(r'"prompt": "[^"]*"', '"prompt": ""', line).encode(),
}
# name -> the whole file; the message names no line
WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "white space": lambda data: b"\xef\xbb\xbf \n\n",
    "gzip that ends early": lambda data: gzip.compress(data)[:-9],
    "gzip with a flipped bit": lambda data: gzip.compress(data)[:-8] + b"\x00\x01\x02\x03\x04\x05\x06\x07",
    "zstd that ends early": lambda data: pa.compress(data, codec="zstd", asbytes=True)[:20],
    "parquet without its end": lambda data: _table(reference(data.decode()), pa.array)[:-30],
    "parquet in name only": lambda data: b"PAR1" + data,
}


def made(source: str, rng: Random) -> str:
    """Return plain JSON Lines with texts and columns of all kinds."""
    lines = []
    for number in range(rng.randint(2, 7)):
        row = {column: rng.choice(TEXTS) + "." for column in COLUMNS[source]}
        row |= {"id": f"{number}{row['id']}"} if "id" in row else {}
        ascii_only, extra = rng.random() < 0.3, rng.sample(UNREAD, rng.randint(0, 2))
        lines.append(", ".join([json.dumps(row, ensure_ascii=ascii_only)[:-1], *extra]) + "}")
    return "".join(f"{line}\n" for line in lines)


def read(source: str, file: Path) -> Rows:
    """Return what pkt reads of a file of test rows, in the file's own columns."""
    if source == "custom":
        rows = find(source).rows("test", Given(data=DataConfig(test=str(file))))
        return [{column: row[column] for column in COLUMNS[source]} for row in rows]
    given = Given(benchmark=BenchmarkConfig(name=source, tasks=[source], data_dir=str(file)))
    return [json.loads(row["doc"]) for row in find(source).rows("test", given)]


def valid(source: str, form: str, seed: int) -> tuple[Verdict, str]:
    """Try a valid file."""
    text = made(source, Random(seed))
    suffix, write = FORMS[form]
    expected = [{column: row[column] for column in COLUMNS[source]} for row in reference(text)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"test{suffix}"
        file.write_bytes(write(text))
        try:
            found = read(source, file)
        except PktError as error:
            return Verdict.WRONG, f"refused, though it is valid: {error}"
    if found == expected:
        return Verdict.WORKS, f"{len(found)} rows"
    return Verdict.WRONG, f"expected {str(expected)[:300]}, read {str(found)[:300]}"


def faulty(source: str, fault: str, seed: int) -> tuple[Verdict, str]:
    """Try a file with a fault, through the command line."""
    rng = Random(seed)
    columns = {column: f"some {column}" for column in COLUMNS[source]}
    lines = [
        json.dumps({**columns, **({"id": str(n)} if "id" in columns else {})})
        for n in range(rng.randint(3, 9))
    ]
    if fault in WHOLE:
        return refused(source, WHOLE[fault]("".join(f"{line}\n" for line in lines).encode()), "")
    at = rng.randrange(1, len(lines))
    damaged = (FAULTS | ONLY_CUSTOM)[fault](lines[at])
    data = [damaged if number == at else line.encode() for number, line in enumerate(lines)]
    return refused(source, b"\n".join(data) + b"\n", f", line {at + 1}")


def refused(source: str, data: bytes, place: str) -> tuple[Verdict, str]:
    """Give a file to the command line, which has to name it and the place, to end with 2 and to leave nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file, outputs = Path(folder) / "test.jsonl", Path(folder) / "outputs"
        file.write_bytes(data)
        named = f"data.test={file}" if source == "custom" else f"benchmark.data_dir={file}"
        code, told = _request("eval", f"benchmark={source}", named, "eval.models=[student]", outputs=outputs)
        left = [str(path.relative_to(folder)) for path in outputs.rglob("*") if path.is_file()]
        if code != 2 or "Traceback" in told or "unexpected" in told:
            return Verdict.TRACEBACK if "unexpected" in told else Verdict.WRONG, f"exit code {code}: {told}"
        if left or f"{file}{place}" not in told:
            return Verdict.WRONG, f"left {left}; should name {file.name}{place}: {told}"
        return Verdict.REFUSED, told.replace(folder, "")


def _request(*words: str, outputs: Path) -> tuple[int, str]:
    """Run a request in this process; return its exit code and what it said on stderr."""
    told = io.StringIO()
    kept = {"PKT_OUTPUT_DIR": str(outputs), "WANDB_MODE": "disabled"}
    with (
        mock.patch.dict(os.environ, kept),
        contextlib.redirect_stderr(told),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            code = main([*words, "tracker=none", "threads=1"])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, told.getvalue()


def trials(count: int | None, seed: int) -> Iterable[Trial]:
    """Yield the trials: forms and faults in turn, for the user's files and for those of a published set.

    Args:
        count: at most so many.
        seed: of the rows.
    """
    yield from itertools.islice(_endless(seed), count or COUNT)


def _endless(seed: int) -> Iterator[Trial]:
    ways: Sequence[tuple[str, str, Callable[..., tuple[Verdict, str]]]] = [
        *((source, form, valid) for form in FORMS for source in COLUMNS),
        *((source, fault, faulty) for fault in (FAULTS | WHOLE) for source in COLUMNS),
        *(("custom", fault, faulty) for fault in ONLY_CUSTOM),
    ]
    mixed = list(ways)
    Random(seed).shuffle(mixed)  # a short form tries some of each
    for number, (source, what, attempt) in zip(itertools.count(), itertools.cycle(mixed)):
        yield Trial(
            name=f"{number}: {source}, {what}",
            attempt=partial(attempt, source, what, seed + number),
        )
