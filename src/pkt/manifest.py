"""The manifest of an artifact: its stage and key, what the key is the hash of, and the checksum of every file.

It is sealed (`pkt.durable`): a bit that changes in it is noticed as one in any other file is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pkt import __version__
from pkt.durable import check_file, entry, read_json, read_sealed, sealed, write_atomically

FORMAT = 5  # of the folder and its manifest; another number makes older artifacts count as missing
MANIFEST = "manifest.json"
_LOADED = (".json", ".safetensors", ".jinja", ".model", ".txt")  # what loaders look for in a folder


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
    manifest = {
        "format": FORMAT,
        "stage": stage,
        "key": key,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pkt": __version__,
        "ingredients": dict(ingredients),
        "meta": dict(meta),
        "files": {name.relative_to(folder).as_posix(): entry(name) for name in _files(folder)},
    }
    write_atomically(folder / MANIFEST, sealed(manifest))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def verified(path: Path) -> dict[str, Any]:
    """Return the manifest of a folder whose files are all there and unchanged.

    Args:
        path: the artifact's folder, named by its key, in that of its stage.

    Raises:
        OSError: something cannot be read.
        ValueError: a file, or the manifest itself, is not as it was written.
    """
    manifest = read_sealed(path / MANIFEST)
    if (manifest["stage"], manifest["key"]) != (path.parent.name, path.name):
        raise ValueError(f"its manifest is for {manifest['stage']} {manifest['key']}")
    for name in manifest["files"]:
        check_file(path / name, *entries(manifest, name))
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        if name not in manifest["files"] and file.suffix in _LOADED and not file.name.startswith("."):
            raise ValueError(f"{name} is not of it, and might be loaded with it")
    return manifest


def entries(manifest: Mapping[str, Any], name: str) -> list[Any]:
    """Return what a file may be: as the manifest says, or as it was before, where it is being replaced."""
    return [own[name] for own in (manifest["files"], manifest.get("replaced", {})) if name in own]


def of_another_format(path: Path) -> bool:
    """Return whether another version of pkt wrote an artifact: it is not damaged, and not to be read."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        return (
            isinstance(manifest["format"], int)
            and manifest["format"] != FORMAT
            and "checksum" not in manifest
        )
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False


def check_inside(file: Path) -> None:
    """Compare a file inside an artifact with the artifact's manifest; nothing is compared where there is none.

    Args:
        file: of an artifact, or of any other folder.

    Raises:
        OSError: something cannot be read.
        ValueError: it is not as it was written.
    """
    for folder in (file.parent, file.parent.parent):
        if (folder / MANIFEST).is_file():
            manifest, name = read_json(folder / MANIFEST), file.relative_to(folder).as_posix()
            if name in manifest["files"]:
                check_file(file, *entries(manifest, name))
            return


def check_loaded(folder: Path) -> None:
    """Compare a model's folder inside an artifact with the artifact's manifest; see `check_inside`."""
    for file in sorted(folder.iterdir()):
        if file.suffix in _LOADED and file.is_file():
            check_inside(file)
