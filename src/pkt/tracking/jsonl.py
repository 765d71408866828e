"""`metrics.jsonl`: one JSON object per line, complete after every line, readable without any service.

{"kind": "metrics", "time": 1.5, "step": 3, "values": {"transfer/loss_layer": 0.25}}
{"kind": "table", "time": 9.1, "name": "eval/scores", "columns": [...], "rows": [[...]]}
also: config, summary (values), figure (name, path), artifact (name, type, key, inputs, made, path)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt.errors import PktError
from pkt.tracking.base import TrackedArtifact


class JsonlTracker:
    """Appends to a file; a second run in the same folder goes on below the first."""

    def __init__(self, path: Path) -> None:
        self._started = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise PktError(
                f"cannot write {path}: {error.strerror}; set output_dir to a writable folder"
            ) from error

    def config(self, values: Mapping[str, Any]) -> None:
        """Write the resolved request."""
        self._write("config", values=values)

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Write metrics of one step."""
        self._write(
            "metrics", step=step, values={f"{stage}/{name}": value for name, value in metrics.items()}
        )

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table."""
        self._write("table", name=name, columns=columns, rows=rows)

    def figure(self, name: str, path: Path) -> None:
        """Write where a picture is."""
        self._write("figure", name=name, path=path)

    def summary(self, values: Mapping[str, float]) -> None:
        """Write the run's final numbers."""
        self._write("summary", values=values)

    def artifact(self, item: TrackedArtifact) -> None:
        """Write what a stage's result is and where it lies."""
        self._write(
            "artifact",
            name=item.name,
            type=item.kind,
            key=item.key,
            inputs=item.inputs,
            made=item.made,
            path=item.folder,
        )

    def close(self, exit_code: int = 0) -> None:
        """Close the file."""
        self._stream.close()

    def _write(self, kind: str, **fields: Any) -> None:
        record = {"kind": kind, "time": round(time.monotonic() - self._started, 3), **fields}
        self._stream.write(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()


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
