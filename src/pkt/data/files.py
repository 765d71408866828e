"""Read a file of rows in any of its forms, and say where in it something is wrong.

    file -> [gzip, zstd] -> parquet, or text -> one list of rows, or a row per line, or a table -> (place, row), ...

What a file is, its first bytes say; of the name only `.parquet`, `.csv` and `.tsv` count. Lines of JSON end in LF, CRLF
or CR and in nothing else: JSON allows every other line separator of Unicode inside a text. Text is UTF-8, or UTF-16 or
UTF-32, which JSON's first bytes give away; other encodings cannot be told apart, and are refused rather than guessed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from pkt.errors import RequestError
from pkt.faults import stands_instead

PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
OTHERS = {
    b"BZh": "packed with bzip2, which is not read: unpack it (bunzip2)",
    b"\xfd7zXZ": "packed with xz, which is not read: unpack it (unxz)",
    b"PK\x03\x04": "a zip archive, which is not read: unpack it (unzip)",
    b"\x1f\x8b": "packed twice with gzip: unpack it once (gunzip)",
    b"\x28\xb5\x2f\xfd": "packed twice: unpack it once (unzstd)",
    b"ARROW1": "an Arrow file, which is not read: write it as parquet",
}  # fmt: skip
"""What a file is that holds no rows in a form that is read, by its first bytes."""
SIGNS = (";", "\t", "|", ",")  # what other programs put between columns
TABLES = {".csv": ",", ".tsv": "\t"}  # what stands between two columns, by a part of the file's name
DIGITS = 4000  # from which on Python refuses to read a number as an integer
MARK = "\ufeff"  # a byte order mark; files that were put together have them at the start of later lines too
_LINE_END = re.compile(r"\r\n|\n|\r")


class Repeated(dict[str, Any]):
    """An object of JSON in which a name stands twice; the last value counts.

    Attributes:
        names: those that stand twice.
    """

    names: frozenset[str]


def read(path: Path, columns: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of a file, such as ``("line 3", {...})``; a row is whatever stands there.

    Args:
        path: the file.
        columns: those that will be looked at; only these are read of a parquet file that has any of them. None: all.

    Raises:
        RequestError: what stands there cannot be read; file, line and column are named.
    """
    try:
        data = _unpacked(path)
    except (OSError, EOFError, zlib.error) as error:
        raise RequestError(
            f"{path}: the file cannot be read ({error}). Fetch or pack it anew, or name another one."
        ) from error
    form = (what for start, what in OTHERS.items() if data.startswith(start))
    if other := stands_instead(data[:64]) or next(form, None):
        raise RequestError(f"{path}: this is {other}.")
    tabular = data[:4] == b"PAR1" or path.suffix == ".parquet"
    if tabular:
        rows = _parquet(path, data, columns)
    else:
        separator = next((mark for name, mark in TABLES.items() if name in path.suffixes), None)
        text = _text(path, data)
        rows = _json(path, text) if separator is None else _table(path, text, separator)
    for place, row in rows:
        if isinstance(row, Repeated) and (twice := row.names & set(columns or row.names)):
            raise RequestError(
                f"{path}, {place}: {', '.join(map(repr, sorted(twice)))} stands twice in one object, so it is not "
                "clear which value counts; remove one."
            )
        yield place, row


def fault(value: Any) -> str | None:
    """Say why a value is no text that can be tokenised, such as ``is null, not a string``; None if it is one."""
    if not isinstance(value, str):
        named = "null" if value is None else type(value).__name__
        return f"is {named}, not a string" + (
            "" if value is None else ": write it as a text (a number in quotes)"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        return (
            f"holds {half} at character {error.start + 1}, half of a pair of surrogates, which is no character; "
            "write the character itself"
        )
    return None


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    packed = next((name for start, name in PACKED.items() if data.startswith(start)), None)
    if packed == "gzip":
        return gzip.decompress(data)
    if packed == "zstd":
        import pyarrow

        with pyarrow.input_stream(pyarrow.BufferReader(data), compression="zstd") as stream:
            return bytes(stream.read())
    return data


def _text(path: Path, data: bytes) -> str:
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.upper().removesuffix("-SIG")
        raise RequestError(
            f"{path}, line {line}: byte {error.start} of the file (0x{data[error.start]:02x}) is not {name}. "
            f"Save the file as UTF-8; if it is Latin-1: iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}"
        ) from error


def _json(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a text with a row per line, or with one list of rows."""
    if text.lstrip(f"{MARK} \t\r\n")[:1] == "[":
        listed = _parsed(path, 1, text)
        yield from ((f"row {number}", row) for number, row in enumerate(listed, start=1))
        return
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip(f"{MARK} \t"):
            yield f"line {number}", _parsed(path, number, line)


def _table(path: Path, text: str, separator: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a text with a line of names and then one row per line, or more with quotes: texts, or None."""
    limit = csv.field_size_limit(sys.maxsize)  # of the whole process; texts may be longer than the default
    try:
        lines = csv.reader(io.StringIO(text.lstrip(MARK), newline=""), delimiter=separator, strict=True)
        names = next(lines, [])
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise RequestError(f"{path}: there are several columns {twice!r}; remove all but one.")
        others = [sign for sign in SIGNS if sign != separator and sign in names[0]] if len(names) == 1 else []
        if others:
            raise RequestError(
                f"{path}: one column, {names[0]!r}, whose name has {others[0]!r} in it: columns are separated by "
                "commas in .csv and by tabs in .tsv; save the file with one of these, or give the column another name."
            )
        line = lines.line_num + 1
        for values in lines:
            start, line = line, lines.line_num + 1
            if not values:
                continue
            if len(values) != len(names):
                raise RequestError(
                    f"{path}, line {start}: {len(values)} values under {len(names)} names; put a text with a "
                    f"{'tab' if separator == TABLES['.tsv'] else 'comma'} or a line break in it in double quotes."
                )
            yield f"line {start}", dict(zip(names, (value or None for value in values), strict=True))
    except csv.Error as error:
        raise RequestError(f"{path}, line {lines.line_num}: not a table ({error}).") from error
    finally:
        csv.field_size_limit(limit)


def _parsed(path: Path, line: int, text: str) -> Any:
    bare = text.lstrip(MARK)
    try:
        return _DECODER.decode(bare)
    except json.JSONDecodeError as error:
        column = error.colno + (len(text) - len(bare) if error.lineno == 1 else 0)
        raise RequestError(
            f"{path}, line {line + error.lineno - 1}, column {column}: not JSON ({error.msg}); each line is one object "
            "(or the file is one list of objects, parquet, or a .csv or .tsv with a line of names; of plain texts, "
            'a line {"text": "..."} each).'
        ) from error
    except RecursionError as error:
        raise RequestError(
            f"{path}, line {line}: nested too deeply to be read; leave that column out."
        ) from error


def _number(digits: str) -> float:
    return int(digits) if len(digits) < DIGITS else float(digits)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    repeated = Repeated(found)
    repeated.names = frozenset(name for name in found if names.count(name) > 1)
    return repeated


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_number)


def _parquet(path: Path, data: bytes, columns: Collection[str]) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        names = file.schema_arrow.names
        wanted = [name for name in columns if name in names] or names
        if twice := [name for name in wanted if names.count(name) > 1]:
            raise RequestError(f"{path}: there are several columns {twice[0]!r}; remove all but one.")
        rows = file.read(columns=wanted).to_pylist()
    except (OSError, ValueError, KeyError, NotImplementedError, pyarrow.ArrowException) as error:
        raise RequestError(
            f"{path}: the parquet file cannot be read ({error}). Fetch or write it anew, or name another one."
        ) from error
    # messages about a file are mostly about its first row, and tell the columns that were not read too
    if rows:
        rows[0] = dict.fromkeys(names) | rows[0]
    yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
