"""The manifest of an artifact: its stage and key, what the key is the hash of, and the checksum of every file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pkt import __version__

FORMAT = 3  # of the folder and its manifest; another number makes older artifacts count as missing
MANIFEST = "manifest.json"


def content_key(parts: Mapping[str, Any]) -> str:
    """Return 16 hex digits that identify `parts`, whatever the order of its keys.

    Args:
        parts: JSON-like values; tuples count as lists.

    Raises:
        TypeError: a value has no canonical JSON form.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_manifest(
    folder: Path, stage: str, key: str, meta: Mapping[str, Any], ingredients: Mapping[str, Any]
) -> None:
    """Write the manifest of all files in a folder.

    Args:
        folder: the artifact being written.
        stage: the stage that computed it.
        key: its content key.
        meta: facts about the result, from the stage.
        ingredients: what the key is the hash of.
    """
    files = {name.relative_to(folder).as_posix(): _checksum(name) for name in _files(folder)}
    manifest = {
        "format": FORMAT,
        "stage": stage,
        "key": key,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pkt": __version__,
        "ingredients": dict(ingredients),
        "meta": dict(meta),
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def file_entry(content: bytes) -> dict[str, Any]:
    """Return the manifest entry of a file with this content."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _checksum(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def verified(path: Path) -> dict[str, Any]:
    """Return the manifest of a folder whose files are all there and unchanged.

    Args:
        path: the artifact's folder, named by its key.

    Raises:
        ValueError: a file, or the manifest itself, is not as it was written.
    """
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if manifest["key"] != path.name:
        raise ValueError(f"its manifest is for {manifest['key']}")
    if not isinstance(manifest["meta"], dict) or not isinstance(manifest["format"], int):
        raise ValueError("its manifest is malformed")
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != expected["size"] or _checksum(file) != expected:
            raise ValueError(f"{name} is missing or changed")
    return manifest


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file so that a reader sees the old or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    umask = os.umask(0)
    os.umask(umask)
    os.fchmod(handle, 0o666 & ~umask)  # mkstemp's files are for their owner alone
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(temporary).replace(path)
