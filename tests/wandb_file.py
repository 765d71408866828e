"""What an offline W&B file holds, read back record by record."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class WandbFile:
    """One offline run."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)  # metrics -> the metric that is their step
    artifacts: list[Any] = field(default_factory=list)  # records, tables left out
    exit_code: int | None = None


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a file: a LevelDB log in 32 KiB blocks behind a 7-byte header."""
    from wandb.proto import wandb_internal_pb2 as pb

    content, at, held = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        if kind == 0 and size == 0:
            break
        chunk = content[at + 7 : at + 7 + size]
        at += 7 + size
        held = chunk if kind in (1, 2) else held + chunk
        if kind in (1, 4):
            record = pb.Record()
            record.ParseFromString(held)
            yield record


def read_file(run_dir: Path) -> WandbFile:
    """Read the one offline run in a folder, once its last record is there: W&B's writer goes on after `finish`."""
    (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = list(records(file))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return _read(found)
        time.sleep(0.05)
    raise AssertionError("the W&B file has no exit record")


def _items(items: Any) -> dict[str, Any]:
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def _read(found: list[Any]) -> WandbFile:
    read = WandbFile()
    for record in found:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            read.id, read.name, read.tags = run.run_id, run.display_name, list(run.tags)
            read.group, read.job_type = run.run_group, run.job_type
            read.config |= _items(run.config.update)
        elif kind == "config":
            read.config |= _items(record.config.update)
        elif kind == "history":
            read.history.append(_items(record.history.item))
        elif kind == "summary":
            read.summary |= _items(record.summary.update)
        elif kind == "metric":
            read.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "artifact" and record.artifact.type != "run_table":
            read.artifacts.append(record.artifact)
        elif kind == "exit":
            read.exit_code = record.exit.exit_code
    return read
