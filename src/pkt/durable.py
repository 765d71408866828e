"""Write what is read back later so that it is whole or not there, and notice any bit that changed since.

    content -> a new file beside its place -> fsync -> rename -> fsync of the folder
    JSON    -> `sealed`: with a checksum over all the rest -> `unsealed` refuses every other text

A folder of several files has one sealed JSON file among them, which names the size and SHA-256 of the others.
State of pkt's own goes through this module: a kill, a full disk or a failing one leaves the old state or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt.errors import system_number

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""Errors that say something about the disk, whoever was writing."""
PASSING = (
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EINTR,
    errno.EAGAIN,
    errno.ESTALE,
    errno.ETIMEDOUT,
)
"""Errors of reading that say nothing about the file: it may be whole."""
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # file systems that cannot do it
_CHECKSUM = "checksum"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader, or whoever comes after a kill, sees the old content or the new one.

    Args:
        path: its folder exists.
        content: text is written as UTF-8.
    """
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f".{path.name}.{unique()}.new")
    try:
        with fresh.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        move(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def unique() -> str:
    """Return a part of a name that no other process, and no earlier call, has used."""
    return f"{os.getpid()}-{time.time_ns():x}"


def move(source: Path, target: Path) -> None:
    """Rename within one folder, and make the folder remember it; `source` has been synchronised."""
    source.replace(target)
    _sync_folder(target.parent)


def sync(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all in it are on the disk; files get the folder's rights of reading and writing.

    (safetensors makes files that their owner alone can read, so that nobody else could reuse a store.)
    """
    rights = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)
            sync(path)
        elif path.is_dir():
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    try:
        sync(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def sealed(content: Mapping[str, Any]) -> str:
    """Return JSON that carries a checksum over everything else in it."""
    plain = {key: value for key, value in content.items() if key != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(plain, indent=1).encode()).hexdigest()
    return json.dumps({**plain, _CHECKSUM: digest}, indent=1)


def unsealed(text: bytes) -> dict[str, Any]:
    """Return what was sealed, without the checksum.

    Raises:
        ValueError: it is not, to the last bit, what `sealed` gave.
    """
    content = _parsed(text)
    if _CHECKSUM not in content:
        raise ValueError("it carries no checksum")
    if sealed(content).encode() != text:
        raise ValueError("its checksum does not fit: it was changed")
    return {key: value for key, value in content.items() if key != _CHECKSUM}


def read_sealed(file: Path) -> dict[str, Any]:
    """Read what `sealed` gave.

    Raises:
        OSError: it cannot be read.
        ValueError: it was changed.
    """
    return unsealed(file.read_bytes())


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; one that carries a checksum is checked (older ones, and those made by hand, have none).

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON object, or was changed.
    """
    text = file.read_bytes()
    content = _parsed(text)
    return unsealed(text) if _CHECKSUM in content else content


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply to be JSON of ours") from error
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def entry_of(content: bytes) -> dict[str, Any]:
    """Return the size and SHA-256 of a content, as a sealed file names them."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def entry(file: Path) -> dict[str, Any]:
    """Return the size and SHA-256 of a file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return {"size": file.stat().st_size, "sha256": digest.hexdigest()}


def check_file(file: Path, *expected: Any) -> None:
    """Compare a file with its entry; several: any of them will do.

    Raises:
        ValueError: it is missing or changed.
    """
    sizes = [own["size"] for own in expected]
    if not file.is_file() or file.stat().st_size not in sizes or entry(file) not in expected:
        raise ValueError(f"{file.name} is missing or changed")


def set_aside(path: Path, why: object, then: str) -> None:
    """Move away what cannot be used, and say so in one line.

    Args:
        path: file or folder.
        why: what is wrong with it.
        then: what happens now.
    """
    aside = path.with_name(f"{path.name}.corrupt-{unique()}")
    try:
        path.replace(aside)
    except OSError as error:
        log.warning("%s cannot be used (%s), nor be moved aside (%s): %s", path, why, error.strerror, then)
    else:
        log.warning("%s cannot be used (%s): moved to %s, %s", path, why, aside.name, then)


def disk_error(error: BaseException) -> OSError | None:
    """Return what the disk said, where that is behind an error; safetensors has it in its text only."""
    number = system_number(error)
    if number is None or number not in FULL:
        return None
    return error if isinstance(error, OSError) else OSError(number, os.strerror(number))
