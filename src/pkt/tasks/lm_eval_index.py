"""The folders of lm-eval's own tasks by name, found once per version of lm-eval and kept in a file.

To find a name, lm-eval reads its 14,000 task files, which takes some ten seconds; one folder takes milliseconds.
The file lies in the user's cache folder (``$XDG_CACHE_HOME/pkt``, else ``~/.cache/pkt``); where that cannot be written,
each request that names a task of lm-eval's takes these seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pkt import console
from pkt.durable import read_json, sealed, write_atomically

log = logging.getLogger(__name__)

Folders = tuple[str, ...]


def root() -> Path:
    """Return the folder of lm-eval's tasks, without importing lm-eval."""
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "tasks"


def cache_file() -> Path:
    """Return the place of the index of the installed version."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pkt" / f"lm_eval-{version('lm_eval')}-tasks.json"


def has_file(name: str) -> bool:
    """Return whether lm-eval has a file of a task's name: a quick sign that the name is no typing error."""
    return any(root().rglob(f"{Path(name).name}.yaml"))


def folders() -> dict[str, Folders]:
    """Return the folders of each task, group and tag of lm-eval; the index is made if it is missing."""
    return _index(cache_file())


@lru_cache(maxsize=2)
def _index(file: Path) -> dict[str, Folders]:
    known = read(file)
    if known is None:
        console.note("lm-eval's tasks are indexed: some ten seconds, once per version of lm-eval")
        known = _made()
        _write(file, known)
    base = root()
    return {name: tuple(f"{base}/{folder}" for folder in of) for name, of in known.items()}


def read(file: Path) -> dict[str, list[str]] | None:
    """Return the kept index, or None where there is none that can be read."""
    try:
        content = read_json(file)
    except OSError:
        return None
    except ValueError as error:
        log.warning("%s cannot be used (%s): it is made anew", file, error)
        return None
    whole = all(isinstance(of, list) and all(isinstance(each, str) for each in of) for of in content.values())
    return content if content and whole else None


def _write(file: Path, index: Mapping[str, Iterable[str]]) -> None:
    """Write the index, whole or not at all."""
    with contextlib.suppress(OSError):  # a read-only home only costs time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, sealed(index))


def _made() -> dict[str, list[str]]:
    """Let lm-eval read all of its task files."""
    from lm_eval.tasks import TaskManager

    entries, base = TaskManager().task_index, root()
    return {
        name: sorted(folder.relative_to(base).as_posix() for folder in _needed(name, entries, set()))
        for name in sorted(entries)
    }


def _needed(name: str, entries: Mapping[str, Any], seen: set[str]) -> set[Path]:
    """Return the folders of a task, or of all members of a group or tag."""
    entry = entries.get(name)
    if entry is None or name in seen:
        return set()
    seen.add(name)
    members = list(entry.tags) if entry.yaml_path is None else _members(entry.cfg)
    own = set() if entry.yaml_path is None else {entry.yaml_path.parent}
    return own.union(*(_needed(member, entries, seen) for member in members))


def _members(config: Mapping[str, Any]) -> list[str]:
    """Return the names that a group's file lists, also those of groups that it spells out."""
    found: list[str] = []
    listed = config.get("task")
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, str):
            found.append(member)
        elif isinstance(member, dict):
            found += [str(member[key]) for key in ("group", "task") if isinstance(member.get(key), str)]
            found += _members(member)
    return found
