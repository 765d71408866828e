"""A disk whose n-th operation fails, for one process: what pkt, Python and safetensors ask of it goes through here.

    open, write, fsync, replace, rename, mkdir under one folder -> counted -> the n-th fails

Faults: ``killed`` (the process ends in the middle of a write), ``power cut`` (it ends, and what was not synchronised
loses its second half), ``no space`` (from the n-th operation on nothing can be written), ``error`` (input/output error,
once).
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

FAULTS = ("killed", "power cut", "no space", "error")
ENDED = 77  # exit code of a process that a fault ended


class FaultyDisk:
    """Counts the operations under a folder, and lets the n-th fail; it stays in place as long as the process lives.

    Args:
        root: the folder.
        at: number of the operation that fails, from 1; 0: none.
        fault: one of `FAULTS`.
    """

    def __init__(self, root: Path, at: int = 0, fault: str = "error") -> None:
        self.root, self.at, self.fault, self.count = str(root), at, fault, 0
        self._synced = {file.stat().st_ino: file.stat().st_mtime_ns for file in self._files()}
        self._open, self._fsync = io.open, os.fsync

    def install(self) -> None:
        """Put it between the process and the disk."""
        for module in (builtins, io):
            setattr(module, "open", self._opened)  # noqa: B010
        setattr(os, "fsync", self._synchronised)  # noqa: B010
        safetensors.torch.serialize_file = self._serialised(safetensors.torch.serialize_file)
        for name in ("replace", "rename", "mkdir"):
            setattr(os, name, self._counted(getattr(os, name)))

    def step(self, *, writes: bool = True, half: Callable[[], object] = lambda: None) -> None:
        """Count one operation and fail where it is the one.

        Args:
            writes: whether it needs room.
            half: does half of the operation, which a fault leaves behind.
        """
        self.count += 1
        later = self.fault == "no space" and 0 < self.at < self.count
        if self.count != self.at and not later:
            return
        if self.fault == "no space" and not writes:
            return
        half()
        if self.fault == "killed":
            os._exit(ENDED)
        if self.fault == "power cut":
            self._lose()
            os._exit(ENDED)
        number = errno.ENOSPC if self.fault == "no space" else errno.EIO
        raise OSError(number, os.strerror(number))

    def _files(self) -> Iterator[Path]:
        return (path for path in Path(self.root).rglob("*") if path.is_file())

    def _lose(self) -> None:
        """Cut every file in half that was changed since it was synchronised."""
        for file in self._files():
            known = file.stat()
            if self._synced.get(known.st_ino) != known.st_mtime_ns:
                os.truncate(file, known.st_size // 2)

    def _ours(self, path: object) -> bool:
        if isinstance(path, int):
            path = str(Path(f"/proc/self/fd/{path}").readlink())
        return os.fspath(path).startswith(self.root) if isinstance(path, str | os.PathLike) else False

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
        if not self._ours(file):
            return self._open(file, mode, buffering, *more, **named)
        writes = any(letter in mode for letter in "wax+")
        self.step(writes=writes)
        if not writes:
            return self._open(file, mode, buffering, *more, **named)
        raw = _Counted(file, mode.replace("b", "").replace("t", ""), disk=self)
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        names = ("encoding", "errors", "newline")
        options = {
            **dict(zip(names, more, strict=False)),
            **{name: named[name] for name in names if name in named},
        }
        return io.TextIOWrapper(buffered, line_buffering=buffering == 1, **options)

    def _synchronised(self, handle: int) -> None:
        if self._ours(handle):
            self.step()
            known = os.fstat(handle)
            self._synced[known.st_ino] = known.st_mtime_ns
        self._fsync(handle)

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *more: Any, **named: Any) -> Any:
            if self._ours(path):
                self.step()
            return real(path, *more, **named)

        return call

    def _serialised(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Let safetensors fail as it does: in Rust, with the system's error in its text."""

        def call(tensors: Any, filename: Any, *more: Any, **named: Any) -> Any:
            if self._ours(filename):
                try:
                    self.step(half=lambda: Path(f"{filename}.half").write_bytes(b"\0" * 9))
                except OSError as error:
                    told = f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})"
                    raise SafetensorError(told) from None
            return real(tensors, filename, *more, **named)

        return call


class _Counted(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, file: Any, mode: str, *, disk: FaultyDisk) -> None:
        super().__init__(file, mode)
        self.disk = disk

    def write(self, data: Any) -> int:
        """Write, unless this is the operation that fails: then half is written."""
        whole = super().write
        self.disk.step(half=lambda: whole(memoryview(data)[: len(data) // 2]))
        return whole(data)
