"""Artifacts: the results of stages, stored under the hash of everything that determines them.

    <root>/<stage>/<key>/            manifest.json + files; complete or absent, never half-written
    <root>/<stage>/<key>.lock        one process computes, the others wait and reuse
    <root>/<stage>/<key>.partial/    resumable state of a computation that was stopped
    <root>/<stage>/<key>.tmp-*/      being written; what a killed process left is removed under the next lock
    <root>/<stage>/<key>.corrupt-*/  failed verification, moved aside

A folder appears by a rename when it is complete and on the disk; a reader checks sizes and sha256 before use. What is
complete is read without a lock and without writing, so a store on a read-only mount can be reused.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pkt import console
from pkt.durable import (
    PASSING,
    disk_error,
    entry,
    entry_of,
    move,
    read_json,
    read_sealed,
    sealed,
    set_aside,
    sync_tree,
    unique,
    write_atomically,
)
from pkt.errors import PktError
from pkt.manifest import FORMAT, MANIFEST, of_another_format, verified, write_manifest
from pkt.secrets import hide

log = logging.getLogger(__name__)

_NAME = re.compile(r"^[\w.-]+$")
NEWEST = 100  # artifacts that a missing one is compared with


def store_root(output_dir: str, store_dir: str | None) -> Path:
    """Return the folder of the store: where it is put by name, else inside the outputs."""
    return Path(store_dir) if store_dir else Path(output_dir) / "store"


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

    def peek(self, stage: str, key: str) -> Artifact | None:
        """Return a verified artifact, or None where there is none or it has to be looked at under its lock.

        Nothing is locked, moved or waited for.
        """
        path = self.path(stage, key)
        try:
            found = _artifact(path)
        except (OSError, ValueError, KeyError, TypeError):  # perhaps it is just being replaced
            return None
        if found is not None:
            with contextlib.suppress(OSError):  # when it was last used; a read-only store does not know
                os.utime(path / MANIFEST)
        return found

    def read(self, stage: str, key: str) -> Artifact | None:
        """Return a verified artifact, or None where there is none; the caller holds the lock.

        A folder that does not match its manifest is moved aside with a warning, so that it is computed again.

        Raises:
            PktError: whether it is whole cannot be told, or what is damaged cannot be moved.
        """
        path = self.path(stage, key)
        try:
            return _artifact(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise PktError(
                    f"cannot read {path}: {error}; it may be whole: nothing was changed"
                ) from error
            set_aside(path, error, "computed anew")
            if path.exists():
                raise PktError(
                    f"{path} is damaged ({error}) and cannot be moved: set output_dir (PKT_OUTPUT_DIR) or store_dir "
                    "(PKT_STORE_DIR) to a writable folder"
                ) from error
            return None

    def ingredients(self, stage: str) -> Iterator[Mapping[str, Any]]:
        """Yield the ingredients of the keys of a stage's newest artifacts."""
        found = sorted((self.root / stage).glob(f"*/{MANIFEST}"), key=_age)
        for path in found[:NEWEST]:
            with contextlib.suppress(OSError, ValueError):  # one that cannot be read explains nothing
                manifest = read_json(path)
                if isinstance(manifest.get("ingredients"), dict):
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
                sync_tree(draft.folder)
                _swap(draft.folder, path)
        except BaseException as error:
            shutil.rmtree(draft.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: there is something to resume from
                self._partial(stage, key).rmdir()
            if (told := disk_error(error)) is not None:
                raise PktError(_unwritable(path, told)) from error
            raise
        self._discard(stage, key)

    def _discard(self, stage: str, key: str) -> None:
        """Remove state to resume from; a process that dies meanwhile leaves a draft, which is swept, and no state."""
        gone = _fresh(self.path(stage, key), "tmp")
        with contextlib.suppress(OSError):  # there was none
            self._partial(stage, key).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def replace(self, artifact: Artifact, name: str, text: str) -> None:
        """Change one text file of an artifact, and its checksum in the manifest; in a read-only store it stays.

        Args:
            artifact: what to change.
            name: path inside the artifact.
            text: the new content.
        """
        try:
            with self.lock(artifact.path.parent.name, artifact.path.name), _writing(artifact.path):
                _replace(artifact.path, name, text)
        except PktError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _READ_ONLY:
                raise
            log.info("%s/%s stays as it is: %s", artifact.path, name, cause.strerror)

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
            with _writing(path):
                _sweep(path)
            yield
        finally:
            lock.release()


def _artifact(path: Path) -> Artifact | None:
    """Return a verified artifact; None where there is none, or one of another format."""
    if not os.path.lexists(path) or of_another_format(path):
        return None
    manifest = verified(path)
    return Artifact(path=path, manifest=manifest) if manifest["format"] == FORMAT else None


def _replace(path: Path, name: str, text: str) -> None:
    """Replace a file of an artifact: whenever the process dies, the manifest allows what is there."""
    manifest = read_sealed(path / MANIFEST)
    before, after = entry(path / name), entry_of(text.encode())
    if before != after:
        files = {**manifest["files"], name: after}
        write_atomically(path / MANIFEST, sealed(manifest | {"files": files, "replaced": {name: before}}))
        write_atomically(path / name, text)


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
    for stale in path.rglob(".*.new"):
        stale.unlink()
    for old in path.parent.glob(f"{path.name}.old-*"):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renames of `_swap`
            move(old, path)


def _fresh(path: Path, kind: str) -> Path:
    """Return an unused sibling name."""
    return path.with_name(f"{path.name}.{kind}-{unique()}")


def _swap(fresh: Path, path: Path) -> None:
    """Put a complete folder in place; an older one goes first."""
    old = _fresh(path, "old") if path.exists() else None
    if old is not None:
        path.replace(old)
    move(fresh, path)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PktError(_unwritable(path, error)) from error


def _unwritable(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    return (
        f"cannot write {path}: {reason}; set output_dir (PKT_OUTPUT_DIR) to a writable folder with room, or store_dir "
        "(PKT_STORE_DIR) for the store alone"
    )
