"""`metrics.jsonl`: one JSON object per line, complete after every line, readable without any service.

{"kind": "metrics", "time": 1.5, "step": 3, "values": {"transfer/loss_layer": 0.25}}
{"kind": "table", "time": 9.1, "name": "eval/scores", "columns": [...], "rows": [[...]]}
also: config, summary (values), figure, page (name, path), artifact (name, type, key, inputs, made, path)

Each line ends with a checksum of the rest of it (`crc`), which is compared when the file is read back.
"""

from __future__ import annotations

import json
import logging
import math
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt.errors import PktError
from pkt.tracking.base import Record

log = logging.getLogger(__name__)

_MARK = ', "crc": "'
# kind -> what is read back of its lines
_FORMS: Mapping[str, Mapping[str, type]] = {
    "metrics": {"step": int, "values": dict},
    "step": {"step": int, "values": dict},
    "table": {"name": str, "columns": list, "rows": list},
}


class JsonlSink:
    """Appends to a file; a second run in the same folder goes on below the first."""

    def __init__(self, path: Path) -> None:
        self._started = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.is_file() and not path.read_bytes().endswith(b"\n")  # the last run here was killed
            self._stream = path.open("a", encoding="utf-8", buffering=1, newline="\n")
            self._stream.write("\n" if half else "")
        except OSError as error:
            raise PktError(
                f"cannot write {path}: {error.strerror}; set output_dir to a writable folder"
            ) from error

    def take(self, kind: str, record: Record) -> None:
        """Write one line; of an artifact what it is and where it lies."""
        if kind == "artifact":
            item = record["item"]
            record = {"name": item.name, "type": item.kind, "key": item.key, "inputs": item.inputs}
            record |= {"made": item.made, "path": item.folder}
        line = {"kind": kind, "time": round(time.monotonic() - self._started, 3), **record}
        self._stream.write(marked(json.dumps(plain(line), ensure_ascii=False, allow_nan=False)))
        self._stream.flush()

    def close(self, exit_code: int) -> None:
        """Close the file."""
        self._stream.close()


def read_records(file: Path) -> list[Record]:
    """Return the lines that the last run in a folder wrote after its request; none where there is no file.

    A line that was changed since, or was being written when its run was killed, is left out; the log says how many.
    """
    records: list[Record] = []
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    damaged = 0
    for line in filter(None, lines):
        record = checked(line)
        if record is None:
            damaged += 1
        elif record["kind"] == "config":
            records.clear()
        else:
            records.append(record)
    if damaged:
        log.warning("%s: %d lines are damaged or were cut off; they are left out", file, damaged)
    return records


def marked(text: str) -> str:
    """Return a JSON object of one line with the checksum of the rest of it, as a line of a file."""
    return f'{text[:-1]}{_MARK}{_crc(text)}"}}\n'


def checked(line: bytes) -> Record | None:
    """Return a line's record, without its checksum; None where it is not as it was written, or of another form."""
    try:
        text = line.decode("utf-8")
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or "kind" not in record:
        return None
    form = _FORMS.get(str(record["kind"]), {})
    if any(not isinstance(record.get(name), kind) for name, kind in form.items()):
        return None
    crc = record.pop("crc", None)  # older files have none
    return (
        record
        if crc is None or text == f'{(own := text.rpartition(_MARK)[0])}{_MARK}{_crc(own + "}")}"}}'
        else None
    )


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode(errors='replace')):08x}"


def plain(value: Any) -> Any:
    """Return a value as JSON has it: tensors and NumPy scalars as numbers, paths as text, no NaN (`"nan"`).

    Args:
        value: anything; what has no JSON form becomes its text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
