"""What is in a store: artifacts, what was left over beside them, and who needs which artifact.

    run folders (texts that name keys) ──┐
    checkpoints, and what they were made from ──> needed: never removed unasked

Only what is recognisably pkt's own is listed: folders and files of its names, in the folders of its stages. Symbolic
links are not followed.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pkt.config import STAGES
from pkt.durable import check_file, move, read_json, read_sealed, unique
from pkt.manifest import MANIFEST, of_another_format, verified
from pkt.run_files import ANALYSIS, METRICS, REQUEST, RUN_STAGES, SCORES

FOLDERS = (*STAGES, "converted/gguf")  # of artifacts
SEALED = ("rows", "models", "probes", "importance", "shown")  # of small sealed files
DELIVERED = "transfer"  # a checkpoint is a result that users take from here: needed, whoever names it
_TEXTS = (SCORES, ANALYSIS, RUN_STAGES, REQUEST, METRICS)
_KEY = re.compile(rb"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
_ARTIFACT = re.compile(r"[0-9a-f]{16}")
_LEFT = re.compile(r"([0-9a-f]{16})\.(partial|lock|(?:tmp|old|corrupt)-\d+-[0-9a-f]+)")
_FRESH = re.compile(r"\..+\.\d+-[0-9a-f]+\.new")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One artifact.

    Attributes:
        path: its folder.
        stage: folder of the store that it lies in.
        size: bytes on disk.
        age: seconds since it was last used.
        made: by whom, and of which model or part, where its manifest can be read.
        state: ``whole``, ``another format``, or what is wrong with its manifest.
        names: keys of other artifacts that its manifest names.
    """

    path: Path
    stage: str
    size: int
    age: float
    made: str
    state: str
    names: frozenset[str]

    @property
    def key(self) -> str:
        """Its key."""
        return self.path.name


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something beside artifacts: ``partial`` state of a stopped stage, a ``lock``, or what a kill or damage left."""

    path: Path
    key: str
    kind: str
    size: int
    age: float


def artifacts(root: Path) -> list[Stored]:
    """Return the artifacts of a store, by stage, the least recently used first."""
    found = [_stored(path, stage) for stage, path in _entries(root) if _ARTIFACT.fullmatch(path.name)]
    return sorted((one for one in found if one), key=lambda one: (FOLDERS.index(one.stage), -one.age))


def leftovers(root: Path) -> list[Leftover]:
    """Return what lies beside the artifacts of a store."""
    found = []
    for _, path in _entries(root):
        if (named := _LEFT.fullmatch(path.name)) and (named[2] != "lock" or path.is_file()):
            found.append(_leftover(path, named[1], named[2].partition("-")[0]))
        elif _ARTIFACT.fullmatch(path.name):
            found += [_leftover(file, path.name, "new") for file in path.rglob(".*.new") if _fresh(file)]
    for folder in map(root.joinpath, SEALED):
        found += [_leftover(file, "", "new") for file in folder.glob(".*.new") if _fresh(file)]
    return found


def _entries(root: Path) -> Iterator[tuple[str, Path]]:
    for stage in FOLDERS:
        folder = root / stage
        if folder.is_dir() and not folder.is_symlink():
            yield from ((stage, path) for path in sorted(folder.iterdir()) if not path.is_symlink())


def _fresh(file: Path) -> bool:
    return bool(_FRESH.fullmatch(file.name)) and file.is_file() and not file.is_symlink()


def _leftover(path: Path, key: str, kind: str) -> Leftover:
    # a training that is stopped or running writes inside its folder
    newest = max((_changed(inner) for inner in [path, *path.rglob("*")]), default=0.0)
    return Leftover(path=path, key=key, kind=kind, size=_size(path), age=time.time() - newest)


def _stored(path: Path, stage: str) -> Stored | None:
    """Return what can be said of an artifact; None for a folder that has no manifest of pkt's: it is another's."""
    if not path.is_dir() or not (path / MANIFEST).is_file():
        return None
    text, manifest, state = b"", dict[str, Any](), "whole"
    try:
        text = (path / MANIFEST).read_bytes()
        manifest = read_json(path / MANIFEST)
        if of_another_format(path):
            state = "another format"
        if manifest.get("key") != path.name:
            return None
    except ValueError as error:  # damaged, if it was pkt's: then it still names its key or its files
        if path.name.encode() not in text and b'"files"' not in text:
            return None
        state = str(error)
    except OSError as error:
        state = str(error)
    meta, made_of = (
        own if isinstance(own := manifest.get(name), dict) else {} for name in ("meta", "ingredients")
    )
    who = [made_of.get("by"), meta.get("role") or meta.get("part") or meta.get("source")]
    return Stored(
        path=path,
        stage=stage,
        size=_size(path),
        age=time.time() - _changed(path / MANIFEST),
        made=" ".join(str(part) for part in who if part),
        state=state,
        names=frozenset(key.decode() for key in _KEY.findall(text)) - {path.name},
    )


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # removed a moment ago
        return 0.0


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)


def needs(stored: Iterable[Stored], runs: Iterable[Path]) -> dict[str, list[str]]:
    """Return who needs which artifact, by key; one that nothing needs is not in it.

    A run needs the artifacts that its folder names, a checkpoint is needed for itself, and what is needed needs what
    it was made from.

    Args:
        stored: the artifacts of a store.
        runs: folders under which run folders lie.
    """
    by_key = {one.key: one for one in stored}
    found: dict[str, list[str]] = {}
    for folder, keys in _named(runs):
        for key in keys & by_key.keys():
            found.setdefault(key, []).append(folder)
    for one in by_key.values():
        if one.stage == DELIVERED:
            found.setdefault(one.key, []).append("a checkpoint")
    waiting = list(found)
    while waiting:
        own = by_key[waiting.pop()]
        for key in sorted(own.names & by_key.keys()):
            if key not in found:
                waiting.append(key)
            found.setdefault(key, []).append(f"{own.stage} {own.key}")
    return found


def _named(runs: Iterable[Path]) -> Iterator[tuple[str, set[str]]]:
    """Yield each run folder with the keys that its texts name."""
    for root in runs:
        for folder, _, names in os.walk(root):
            texts = [Path(folder) / name for name in _TEXTS if name in names]
            read = [text.read_bytes() for text in texts if text.exists()]  # a link may lead nowhere
            keys = {key.decode() for text in read for key in _KEY.findall(text)}
            if keys:
                yield str(Path(folder).relative_to(root)), keys


def damages(root: Path, runs: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Yield what is not as it was written: artifacts, state to resume from, remembered digests, run folders.

    Args:
        root: of the store.
        runs: folders under which run folders lie.
    """
    for _, path in _entries(root):
        if _ARTIFACT.fullmatch(path.name) and path.is_dir() and not of_another_format(path):
            yield from _told(path, lambda path=path: verified(path))
        elif path.name.endswith(".partial"):
            for file in [*path.rglob("state.json"), *path.rglob("sensitivity.json")]:
                yield from _told(file, lambda file=file: _check_state(file))
    for file in (file for folder in SEALED for file in sorted((root / folder).glob("*.json"))):
        yield from _told(file, lambda file=file: read_sealed(file))
    for folder in runs:
        for file in sorted([*folder.rglob(SCORES), *folder.rglob(ANALYSIS)]):
            yield from _told(file, lambda file=file: read_json(file))


def _check_state(file: Path) -> None:
    files: Mapping[str, Any] = read_sealed(file)["files"]
    for name, expected in files.items():
        check_file(file.parent / name, expected)


def _told(path: Path, check: Any) -> Iterator[tuple[Path, str]]:
    try:
        check()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield path, str(error)


def remove(one: Stored | Leftover) -> bool:
    """Remove an artifact or a leftover, unless a process holds its lock.

    Returns:
        Whether it is gone.

    Raises:
        OSError: it cannot be removed.
    """
    if not one.key:
        one.path.unlink(missing_ok=True)
        return True
    place = one.path if isinstance(one, Stored) else _beside(one)
    file = place.with_name(f"{one.key}.lock")
    there = file.exists()
    lock = FileLock(str(file), is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        _remove(one.path)
        if not there or one.path == file or isinstance(one, Stored):
            file.unlink(missing_ok=True)
    finally:
        lock.release()
    return True


def _beside(one: Leftover) -> Path:
    """Return the place of the artifact that a leftover belongs to."""
    inside = next((folder for folder in one.path.parents if folder.name == one.key), None)
    return inside or one.path.with_name(one.key)


def _remove(path: Path) -> None:
    if path.is_dir():
        key = path.name.removesuffix(".partial")
        if _ARTIFACT.fullmatch(
            key
        ):  # never half of it under its own name, an artifact or state to resume from
            gone = path.with_name(f"{key}.tmp-{unique()}")
            move(path, gone)
            path = gone
        shutil.rmtree(path)
    elif not path.name.endswith(".lock"):
        path.unlink(missing_ok=True)
