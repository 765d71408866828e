"""Small facts that were found out once and are kept in the store: a sealed file for each, named by what it depends on.

    name ──> recall ──> what was found, or None ──> find it out ──> remember

A file that is damaged or lies under another's name is not believed, and one that cannot be written is not missed. A
request that is refused leaves none: `forget` removes what was kept since it began.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt.durable import read_sealed, sealed, write_atomically

log = logging.getLogger(__name__)
_MADE: list[Path] = []  # files and folders of the request that runs, in the order in which they were made


def recall(file: Path, then: str) -> dict[str, Any] | None:
    """Return what a file remembers; None where it is not there or not to be believed, which is said.

    Args:
        file: named by all that its content depends on.
        then: what happens instead, such as ``the model is probed again``.
    """
    if not file.is_file():
        return None
    try:
        content = read_sealed(file)
        if (name := content.get("name")) not in (None, file.name):
            raise ValueError(f"it was written for {name}")
    except (OSError, ValueError) as error:
        log.warning("%s cannot be used (%s): %s", file, error, then)
        return None
    return content if name else None  # without a name: by an earlier version


def remember(file: Path, content: Mapping[str, Any]) -> None:
    """Keep what was found out, where its folder can be written."""
    new = [path for path in (file, *file.parents) if not path.exists()]
    _MADE.extend(reversed(new))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, sealed({"name": file.name, **content}))
    except OSError as error:
        log.debug("%s is not kept: %s", file, error)


def begin() -> None:
    """Let what is remembered from now on be another request's."""
    _MADE.clear()


def forget() -> None:
    """Remove what the request has remembered, and the folders that were made for it where nothing else is in them."""
    while _MADE:
        path = _MADE.pop()
        with contextlib.suppress(OSError):  # not there, not empty, or on a disk that takes no writes
            path.rmdir() if path.is_dir() else path.unlink()
