"""`metrics.jsonl`: one JSON object per line, complete after every line, readable without any service.

{"kind": "metrics", "time": 1.5, "step": 3, "values": {"transfer/loss_layer": 0.25}}
{"kind": "table", "time": 9.1, "name": "eval/scores", "columns": [...], "rows": [[...]]}
also: config, summary (values), figure, page (name, path), artifact (name, type, key, inputs, made, path)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt.errors import PktError
from pkt.tracking.base import Record

METRICS = "metrics.jsonl"


class JsonlSink:
    """Appends to a file; a second run in the same folder goes on below the first."""

    def __init__(self, path: Path) -> None:
        self._started = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.is_file() and not path.read_bytes().endswith(b"\n")  # the last run here was killed
            self._stream = path.open("a", encoding="utf-8", buffering=1)
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
        self._stream.write(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self, exit_code: int) -> None:
        """Close the file."""
        self._stream.close()


def read_records(file: Path) -> list[Record]:
    """Return the lines that the last run in a folder wrote after its request; none where there is no file."""
    records: list[Record] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:  # the line that was being written when a run was killed
            continue
        if record["kind"] == "config":
            records.clear()
        else:
            records.append(record)
    return records


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
