"""The sandbox's child confines itself: namespaces, a disk of its own, Landlock, limits, a user without rights.

    fork server: namespaces() -> per program, after the fork: limit(), landlock(), drop(), then syscalls and audit

Standard library only, and nothing from pkt: the child loads this file in an isolated interpreter. Linux has all layers.
Elsewhere, or where the kernel refuses one, the audit hook (audit.py) replaces it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

NOBODY = 65534
TASKS = 64 + 1  # threads that a program may have, and the one that it begins with
NEWNS, NEWUSER, NEWPID, NEWNET, NEWIPC = 0x20000, 0x10000000, 0x20000000, 0x40000000, 0x08000000
PRIVATE, RECURSIVE, NOSUID, NODEV, NOEXEC = 1 << 18, 1 << 14, 2, 4, 8
SET_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES = 1, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ, WRITE = 1 << 2 | 1 << 3, 1 << 1  # read a file, list a folder
FILE_ONLY = 1 << 1 | 1 << 2 | 1 << 14
# folders that a private disk may cover, unless Python lies below them; none is a program's business
COVERED = ("/tmp", "/var/tmp", "/mnt", "/media", "/srv", "/opt")


def namespaces(native: Any, size: int) -> set[str]:
    """Leave the network, the process tree and the mounts, for a disk of its own; return what is now in force.

    A process id namespace takes effect in the next child: the caller forks once and goes on in that child.

    Args:
        native: the module of that name.
        size: bytes of the disk that is mounted at `own_disk`.

    Returns:
        Of ``internet``, ``signals``, ``disk`` what the kernel grants; a network does not bind sockets of Unix.
    """
    if not sys.platform.startswith("linux"):
        return set()
    user, group = os.geteuid(), os.getegid()
    alone = 0 if user == 0 else NEWUSER  # root needs none, and could not change its user inside one
    for flags, given in ((NEWPID | NEWNET | NEWIPC, {"internet", "signals"}), (NEWNET, {"internet"})):
        for mounts in (NEWNS, 0):
            with contextlib.suppress(OSError):
                native.call("unshare", alone | flags | mounts)
                return given | (_own_mounts(native, user, group, size) if mounts else set())
    return set()


def _own_mounts(native: Any, user: int, group: int, size: int) -> set[str]:
    """Keep later mounts to this process and its children; a user namespace needs its owner's numbers for them."""
    with contextlib.suppress(OSError):
        if user:
            numbers = (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            )
            for name, text in numbers:
                with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
                    file.write(text)
        native.call("mount", b"none", b"/", None, PRIVATE | RECURSIVE, None)
        if place := own_disk():
            mount(native, place, size)
            return {"disk"}
    return set()


@functools.cache
def own_disk() -> str:
    """Return the folder that a private disk may cover, or an empty string."""
    needed = [__file__, sys.executable, sys.prefix, sys.base_prefix, *readable()]
    needed += [os.path.realpath(path) for path in needed]
    return next(
        (
            place
            for place in COVERED
            if os.path.isdir(place)  # noqa: PTH112 - pathlib is not loaded here
            and not any(path.startswith(f"{place}/") for path in needed)
        ),
        "",
    )


def mount(native: Any, place: str, size: int) -> None:
    """Mount an empty disk in memory, on which a program may write as in any folder for temporary files."""
    how = f"size={size},nr_inodes=8192,mode=1777"
    native.call("mount", b"tmpfs", place.encode(), b"tmpfs", NOSUID | NODEV | NOEXEC, how.encode())


def die_with_parent(native: Any) -> None:
    """Ask for SIGKILL when the process that started this one ends (Linux)."""
    if sys.platform.startswith("linux"):
        native.call("prctl", SET_DEATH_SIGNAL, 9, 0, 0, 0)


def landlock(native: Any, writable: str) -> set[str]:
    """Allow reading Python's library, writing below one folder, and no other file.

    Returns:
        ``{"files"}`` if the kernel supports it (5.13 and later), with ``signals`` from 6.12 on; else nothing.
    """
    if not sys.platform.startswith("linux"):  # where these numbers are other calls
        return set()
    try:
        version, ruleset = rules(native, writable)
        native.call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        native.call("syscall", LANDLOCK_RESTRICT, ruleset, 0)
    except OSError:
        return set()
    os.close(ruleset)
    return {"files", "signals"} if version >= 6 else {"files"}


@functools.cache  # the folder is the same for all programs of a server, which makes the rules before the first fork
def rules(native: Any, writable: str) -> tuple[int, int]:
    """Return the version of Landlock and the handle of the rules that allow reading the library and writing a folder.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = native.call("syscall", LANDLOCK_CREATE, None, 0, 1)
    every = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    handled = struct.pack("QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = native.call("syscall", LANDLOCK_CREATE, handled, size, 0)
    for path in readable():
        _allow(native, ruleset, path, READ)
    _allow(native, ruleset, "/dev/null", READ | WRITE)
    _allow(native, ruleset, writable, every)
    return version, ruleset


def _allow(native: Any, ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this machine
        return
    if not os.path.isdir(path):  # noqa: PTH112
        rights &= FILE_ONLY
    try:
        native.call("syscall", LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)


@functools.cache  # asked for before the program's user may lack the right to find out
def readable() -> tuple[str, ...]:
    """Return the folders and files of Python's library, locales and time zones."""
    library = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return (*sorted(library), "/usr/lib/locale", "/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom")


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


@functools.cache
def tasks() -> int:
    """Return how many tasks this user may have, threads of programs included: those that run now, and `TASKS`.

    A user of its own has none yet. Where they cannot be counted, the user's own limit stays.
    """
    if os.geteuid() == 0:
        return TASKS
    running = 0
    for process in os.listdir("/proc") if os.path.isdir("/proc/self") else ():  # noqa: PTH208, PTH112
        with contextlib.suppress(OSError):
            if process.isdigit() and os.stat(f"/proc/{process}").st_uid == os.getuid():  # noqa: PTH116
                running += len(os.listdir(f"/proc/{process}/task"))  # noqa: PTH208
    return running + TASKS if running else -1


def limit(seconds: float, memory: int, file_size: int, files: int) -> None:
    """Limit CPU seconds, address space, file size, open files and threads; forbid core dumps.

    A limit that is lower already stays.
    """
    cpu = int(seconds) + 1
    for name, value in (
        ("RLIMIT_CPU", cpu),
        ("RLIMIT_AS", memory),
        ("RLIMIT_FSIZE", file_size),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", files),
        ("RLIMIT_NPROC", tasks()),
    ):
        with contextlib.suppress(ValueError, OSError, AttributeError):  # macOS refuses some
            number = getattr(resource, name)
            hard = resource.getrlimit(number)[1]
            lowest = min((most for most in (value, hard) if most >= 0), default=-1)
            resource.setrlimit(number, (lowest, lowest))


def drop(native: Any, user: int) -> set[str]:
    """Become a user, where this one is root, and give up every capability of root or of a user namespace.

    Returns:
        ``{"user"}``.

    Raises:
        OSError: this process may not.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if sys.platform.startswith("linux"):
        native.call("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))
    return {"user"}
