"""A checkpoint's identity from its files, without loading the weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pkt.config import CheckpointSpec
from pkt.models.hub import commit
from pkt.models.kept import kept_by
from pkt.models.source import locate

LARGE = 16 * 1024 * 1024  # bytes from which on a file is read by a thread of its own
_TEXT = (".json", ".model", ".txt", ".jinja")  # config, tokenizer, chat template


def fingerprint(spec: CheckpointSpec, *, teacher: CheckpointSpec | None = None) -> str:
    """Return 16 hex digits that identify what `load_model` would give.

    Files are hashed whole: two students may differ in the rows of one matrix. A hub id is identified by the commit that
    its files are taken from, or where neither the hub nor the local cache knows it by its revision.

    Args:
        spec: the checkpoint.
        teacher: the pair's teacher, when `spec` is its student.

    Raises:
        RequestError: a local checkpoint that does not exist.
    """
    if (kept := kept_by(spec)) is not None:
        assert teacher is not None
        own = replace(teacher, dtype=spec.dtype, roles=spec.roles or teacher.roles)
        return _short([fingerprint(own), *map(str, kept.layers), *([kept.widths] if kept.widths else [])])
    source = locate(spec, "teacher" if teacher is None else "student")
    if source.kind == "hub":
        content = f"{source.name}@{commit(source) or source.revision}"
    else:
        content = content_digest(source.local)
    roles = {key: spec.roles[key] for key in spec.roles} if spec.roles else {}
    return _short([content, spec.dtype, roles])


def content_digest(path: Path) -> str:
    """Return a sha256 over a checkpoint's folder or file."""
    files = [path] if path.is_file() else list(_read_by_loader(path))
    return _content(path, tuple((file, *state(file)) for file in files))


def state(file: Path) -> tuple[int, int]:
    """Return size and time of change: what is remembered about a file holds as long as these do."""
    known = file.stat()
    return known.st_size, known.st_mtime_ns


@lru_cache(maxsize=64)  # a student cut from its teacher asks for the teacher's again
def _content(path: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    digest, large = hashlib.sha256(), [file for file, size, _ in files if size > LARGE]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # hashing leaves the interpreter's lock
        found = dict(zip(large, pool.map(_hashed, large), strict=True))
    for file, size, _ in files:
        digest.update(f"{file.name if path.is_dir() else ''}:{size}\n".encode())
        digest.update(found[file] if file in found else file.read_bytes())
    return digest.hexdigest()


def _hashed(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _read_by_loader(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.is_file() and (file.suffix in _TEXT or file.suffix == ".safetensors"):
            yield file


def _short(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
