"""Artifacts: the results of stages, stored under the hash of everything that determines them.

    <root>/<stage>/<key>/            manifest.json + files; complete or absent, never half-written
    <root>/<stage>/<key>.lock        one process computes, the others wait and reuse
    <root>/<stage>/<key>.partial/    resumable state of a computation that was stopped
    <root>/<stage>/<key>.tmp-*/      being written; what a killed process left is removed under the next lock
    <root>/<stage>/<key>.corrupt-*/  failed verification, moved aside

A folder appears by a rename when it is complete; a reader checks sizes and sha256 before use.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pkt import console
from pkt.errors import PktError
from pkt.manifest import FORMAT, MANIFEST, file_entry, verified, write_atomically, write_manifest
from pkt.secrets import hide

log = logging.getLogger(__name__)

_NAME = re.compile(r"^[\w.-]+$")
NEWEST = 100  # artifacts that a missing one is compared with


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A complete, verified folder in the store.

    Attributes:
        path: the folder.
        manifest: the whole manifest.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The content key."""
        return str(self.manifest["key"])

    @property
    def meta(self) -> Mapping[str, Any]:
        """Facts about the result, from the stage."""
        meta: Mapping[str, Any] = self.manifest["meta"]
        return meta

    @property
    def size(self) -> int:
        """Bytes of its files on disk."""
        return sum(int(file["size"]) for file in self.manifest["files"].values())


@dataclass(kw_only=True)
class Draft:
    """An artifact being written.

    Attributes:
        folder: where the stage puts its files.
        meta: facts for the manifest.
    """

    folder: Path
    meta: dict[str, Any] = field(default_factory=dict)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts (JSON-like) to the manifest's `meta`."""
        self.meta.update(facts)


@dataclass(frozen=True)
class Store:
    """The artifacts under one folder.

    Attributes:
        root: the folder; created when something is written.
    """

    root: Path

    def path(self, stage: str, key: str) -> Path:
        """Return the folder of an artifact, whether it exists or not."""
        assert _NAME.match(stage), stage
        assert _NAME.match(key), key
        return self.root / stage / key

    def read(self, stage: str, key: str) -> Artifact | None:
        """Return a verified artifact, or None where there is none.

        A folder that does not match its manifest is moved aside with a warning, so that it is computed again.
        """
        path = self.path(stage, key)
        if not path.exists():
            return None
        try:
            manifest = verified(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            aside = _fresh(path, "corrupt")
            with _writing(aside):
                path.replace(aside)
            log.warning(
                "%s/%s cannot be used (%s): moved to %s, computed anew", stage, key, error, aside.name
            )
            return None
        return Artifact(path=path, manifest=manifest) if manifest["format"] == FORMAT else None

    def ingredients(self, stage: str) -> Iterator[Mapping[str, Any]]:
        """Yield the ingredients of the keys of a stage's newest artifacts."""
        found = sorted((self.root / stage).glob(f"*/{MANIFEST}"), key=_age)
        for path in found[:NEWEST]:
            with contextlib.suppress(OSError, ValueError):  # one that cannot be read explains nothing
                manifest = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(manifest, dict) and isinstance(manifest.get("ingredients"), dict):
                    yield manifest["ingredients"]

    @contextlib.contextmanager
    def write(self, stage: str, key: str, *, ingredients: Mapping[str, Any] | None = None) -> Iterator[Draft]:
        """Yield a draft beside the artifact's place, and move it there if the block ends without an exception.

        Args:
            stage: the stage that computes it.
            key: its content key.
            ingredients: what the key is the hash of; kept in the manifest.

        Raises:
            PktError: the store cannot be written.
        """
        path = self.path(stage, key)
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Draft(folder=_fresh(path, "tmp"))
            draft.folder.mkdir()
        try:
            yield draft
            with _writing(path):
                write_manifest(draft.folder, stage, key, hide(draft.meta), hide(ingredients or {}))
                _swap(draft.folder, path)
        except BaseException as error:
            shutil.rmtree(draft.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: there is something to resume from
                self._partial(stage, key).rmdir()
            if isinstance(error, OSError) and error.errno in _FULL:
                raise PktError(_unwritable(path, error)) from error
            raise
        shutil.rmtree(self._partial(stage, key), ignore_errors=True)

    def replace(self, artifact: Artifact, name: str, text: str) -> None:
        """Change one text file of an artifact, and its checksum in the manifest.

        Args:
            artifact: what to change.
            name: path inside the artifact.
            text: the new content.
        """
        with self.lock(artifact.path.parent.name, artifact.path.name), _writing(artifact.path):
            manifest = json.loads((artifact.path / MANIFEST).read_text(encoding="utf-8"))
            # the manifest goes first: if we are killed in between, verification sees a mismatch, never a lie
            manifest["files"][name] = file_entry(text.encode())
            write_atomically(artifact.path / MANIFEST, json.dumps(manifest, indent=1))
            write_atomically(artifact.path / name, text)

    def partial(self, stage: str, key: str) -> Path:
        """Return the folder for resumable state; `write` removes it when the artifact is complete."""
        folder = self._partial(stage, key)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _partial(self, stage: str, key: str) -> Path:
        return self.path(stage, key).with_name(f"{key}.partial")

    @contextlib.contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Lock an artifact: a second process waits here, with a message, and then finds the result.

        Args:
            stage: the stage.
            key: the content key.

        Raises:
            PktError: the store cannot be written.
        """
        path = self.path(stage, key)
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(str(path.with_name(f"{key}.lock")), is_singleton=True)
            _acquire(lock, f"{stage} {key}")
        try:
            _sweep(path)
            yield
        finally:
            lock.release()


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:  # removed a moment ago
        return 0.0


def _acquire(lock: FileLock, what: str) -> None:
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        console.note(f"pkt: {what} is being computed by another process: waiting for it")
        lock.acquire()


def _sweep(path: Path) -> None:
    """Remove what a process that was killed while writing has left; the caller holds the lock."""
    for stale in path.parent.glob(f"{path.name}.tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
    for old in path.parent.glob(f"{path.name}.old-*"):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renames of `_swap`
            old.replace(path)


def _fresh(path: Path, kind: str) -> Path:
    """Return an unused sibling name."""
    return path.with_name(f"{path.name}.{kind}-{os.getpid()}-{time.time_ns():x}")


def _swap(fresh: Path, path: Path) -> None:
    """Put a complete folder in place; an older one goes first."""
    old = _fresh(path, "old") if path.exists() else None
    if old is not None:
        path.replace(old)
    fresh.replace(path)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


# an OSError out of a stage's own code is about the store when the disk is full
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PktError(_unwritable(path, error)) from error


def _unwritable(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"cannot write {path}: {reason}; set output_dir (PKT_OUTPUT_DIR) to a writable folder with room"
