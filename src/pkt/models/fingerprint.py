"""A checkpoint's identity from its files, without loading the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pkt.config import CheckpointSpec
from pkt.models.hub import cached_commit
from pkt.models.kept import kept_by
from pkt.models.source import locate

BLOCK = 64 * 1024  # bytes per sample of a large file
SAMPLES = 64
WHOLE = 16 * 1024 * 1024  # bytes up to which a file is read whole
_TEXT = (".json", ".model", ".txt", ".jinja")  # config, tokenizer, chat template


def fingerprint(spec: CheckpointSpec, *, teacher: CheckpointSpec | None = None) -> str:
    """Return 16 hex digits that identify what `load_model` would give.

    Files up to 16 MiB are hashed whole. Of larger ones the size, the first block (a safetensors header) and 64
    blocks spread over the file are hashed: this can miss single weights that are edited in place, but not a file that
    was retrained or converted. A hub id is identified by its commit if the local cache has it, else by its revision.

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
        content = f"{source.name}@{cached_commit(source) or source.revision}"
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
    digest = hashlib.sha256()
    for file, *_ in files:
        digest.update(f"{file.name if path.is_dir() else ''}:{file.stat().st_size}\n".encode())
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def _read_by_loader(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.is_file() and (file.suffix in _TEXT or file.suffix == ".safetensors"):
            yield file


def _blocks(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= WHOLE:
            yield stream.read()
            return
        for sample in range(SAMPLES + 1):
            stream.seek((size - BLOCK) * sample // SAMPLES)
            yield stream.read(BLOCK)


def _short(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
