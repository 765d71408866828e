"""The sandbox's child confines itself: namespaces, Landlock, rlimits, an unprivileged user.

    fork server: namespaces() -> per program, after the fork: limit(), landlock(), drop(), then syscalls and audit

Standard library only, and nothing from pkt: the child loads this file in an isolated interpreter. Linux has all layers.
Elsewhere, or where the kernel refuses one, the audit hook (audit.py) replaces it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

NOBODY = 65534
NEWUSER, NEWPID, NEWNET, NEWIPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
SET_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES = 1, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ = 1 << 0 | 1 << 2 | 1 << 3  # execute (for shared objects), read a file, list a folder
FILE_ONLY = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def namespaces() -> set[str]:
    """Leave the network and the process tree; return the layers that are now in force (``network``, ``signals``).

    A process id namespace takes effect in the next child: the caller forks once and goes on in that child.
    """
    if not sys.platform.startswith("linux"):
        return set()
    user = 0 if os.geteuid() == 0 else NEWUSER  # root needs none, and could not drop to nobody inside one
    if _libc().unshare(user | NEWPID | NEWNET | NEWIPC) == 0:
        return {"network", "signals"}
    return {"network"} if _libc().unshare(user | NEWNET) == 0 else set()


def die_with_parent() -> None:
    """Ask for SIGKILL when the process that started this one ends (Linux)."""
    if sys.platform.startswith("linux"):
        _libc().prctl(SET_DEATH_SIGNAL, 9, 0, 0, 0)


def landlock(writable: str) -> set[str]:
    """Allow reading Python and the system's libraries, writing below one folder, and no other file.

    Returns:
        ``{"files"}`` if the kernel supports it (5.13 and later), else nothing.
    """
    if not sys.platform.startswith("linux"):
        return set()
    libc = _libc()
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return set()
    every = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    rules = struct.pack("Q", every)
    ruleset = libc.syscall(LANDLOCK_CREATE, rules, len(rules), 0)
    if ruleset < 0:
        return set()
    for path in readable():
        _allow(libc, ruleset, path, READ)
    _allow(libc, ruleset, "/dev/null", READ | 1 << 1)
    _allow(libc, ruleset, writable, every)
    libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = libc.syscall(LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return {"files"} if done else set()


@functools.cache  # asked for before the program's user may lack the right to find out
def readable() -> tuple[str, ...]:
    """Return the folders of Python and its libraries."""
    library = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return (*sorted(library), "/usr/lib", "/usr/share/zoneinfo", "/lib", "/lib64", "/dev/urandom")


def works(enter: Callable[[], set[str]]) -> set[str]:
    """Return the protection that a layer gives here, tried in a fork because a layer cannot be undone."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, " ".join(enter()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    given = os.read(reader, 64).decode().split()
    os.close(reader)
    os.waitpid(child, 0)
    return set(given)


def _allow(libc: Any, ruleset: int, path: str, rights: int) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib is not loaded here
            rights &= FILE_ONLY
        libc.syscall(LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, handle), 0)
        os.close(handle)


def limit(seconds: float, memory: int, file_size: int) -> None:
    """Limit CPU seconds, address space, file size and open files; forbid core dumps, processes and threads."""
    cpu = int(seconds) + 1
    for name, value in (
        ("RLIMIT_CPU", cpu),
        ("RLIMIT_AS", memory),
        ("RLIMIT_FSIZE", file_size),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_NPROC", 0),
    ):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, value))


def drop() -> None:
    """Become nobody when root, because RLIMIT_NPROC does not bind root; fails when it cannot."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
