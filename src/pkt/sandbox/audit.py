"""An audit hook, which a program cannot remove, refuses calls of Python to a generated program.

Where layers of the kernel are missing, the hook refuses the Python calls that these layers would have refused. It
always refuses what shows or changes the interpreter that runs the program: native code under any name, forged bytecode,
tracing, foreign functions. Standard library only, loaded by the sandbox's child with builtins of its own, which a
program cannot change.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
# refused where the kernel's layer is missing: layer -> prefixes of audit events
EVENTS: dict[str, tuple[str, ...]] = {
    "network": ("socket.",),
    "signals": ("os.kill", "signal.pthread_kill", "fcntl."),
    "files": (
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chdir",
        "os.chroot",
        "sqlite3.",
    ),
    "metadata": (
        "os.chmod",
        "os.chown",
        "os.lchown",
        "os.chflags",
        "os.utime",
        "os.setxattr",
        "os.removexattr",
    ),
    "code": (),
}
# always refused: other programs, other processes' limits, and a look into the interpreter
ESCAPES = (
    *("ctypes.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "os.spawn", "pty.spawn"),
    *("gc.get_", "sys.settrace", "sys._current_", "cpython.PyInterpreterState_New", "marshal.load"),
    *("sqlite3.enable_load_extension", "sqlite3.load_extension", "resource.prlimit", "syslog."),
)
# calls that raise no audit event: layer -> names in `os` and `signal`
UNHEARD: dict[str, tuple[str, ...]] = {
    "files": ("mkfifo", "mknod"),
    "code": (
        "raise_signal",
        "pthread_kill",
    ),  # a program that kills itself would look like one that the host has killed
}
# changes that are allowed in the own folder where files are not the kernel's matter
CHANGES = ("os.remove", "os.rmdir", "os.mkdir", "os.rename")
PAIR = (1, 1)  # family and kind of a socket that goes nowhere by itself: a Unix stream


def watch(missing: set[str], writable: str, readable: Iterable[str]) -> None:
    """Install the hook: it refuses `ESCAPES` and the `EVENTS` of missing layers.

    A program can reach the hook's frame, by the traceback of a refusal or from a signal's handler. So the frame refers
    to nothing that can be changed: no function of Python's, no cell, no list, no name that is looked up.

    Args:
        missing: layers that the kernel does not provide.
        writable: the folder that the program may write to.
        readable: folders and files that it may read.
    """
    for name in (name for layer in missing for name in UNHEARD.get(layer, ())):
        for module in ("os", "posix", "signal", "_signal"):
            if module in sys.modules:
                vars(sys.modules[module]).pop(name, None)
    events = tuple(event for layer in sorted(missing) for event in EVENTS[layer]) + ESCAPES
    calls = functools.partial(
        _refuse_calls, events=events, pair=PAIR, coroutine=types.coroutine.__code__, frame=sys._getframe
    )
    known = tuple(f"{form}/" for path in readable for form in (path, os.path.realpath(path)))
    paths = functools.partial(
        _refuse_paths, inside=f"{writable}/", known=known, changes=CHANGES, devices=DEVICES, status=os.stat
    )
    add = sys.addaudithook
    globals().clear()
    add(calls)
    if "files" in missing:
        add(paths)


def _refuse_calls(
    event: str,
    details: tuple[Any, ...],
    *,
    events: tuple[str, ...],
    pair: tuple[int, int],
    coroutine: types.CodeType,
    frame: Callable[[int], types.FrameType],
    denied: type[Exception] = PermissionError,
) -> None:
    if event == "import" and details[1] is not None:  # a file of native code, whatever it is called
        raise denied("the sandbox refuses native code")
    if event == "code.__new__" and frame(1).f_code is not coroutine:  # forged bytecode reads any memory
        raise denied("the sandbox refuses bytecode")
    if event == "socket.__new__" and (details[1], details[2] & 15) == pair:
        return
    if event.startswith(events):
        raise denied(f"the sandbox refuses {event}")


def _refuse_paths(
    event: str,
    details: tuple[Any, ...],
    *,
    inside: str,
    known: tuple[str, ...],
    changes: tuple[str, ...],
    devices: tuple[str, ...],
    status: Callable[[str], os.stat_result],
    writes: int = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND,
    kind: Callable[[Any], type] = type,
    types_of_path: tuple[type, type, type] = (str, bytes, int),
    denied: type[Exception] = PermissionError,
) -> None:
    """Compare paths as text; a program may neither change its folder nor make links, so it cannot bend them."""
    if event not in ("open", "os.listdir", "os.scandir", *changes):
        return
    text, data, handle = types_of_path
    both = event == "os.rename"
    change = event in changes or (event == "open" and kind(details[2]) is handle and details[2] & writes)
    if event in changes and (details[-1] != -1 or (both and details[-2] != -1)):  # relative to a handle
        raise denied(f"the sandbox refuses {event}")
    for path in details[: 2 if both else 1]:
        if kind(path) is data:
            path = path.decode("utf-8", "surrogateescape")
        if (path is None or kind(path) is handle) and not change:
            continue
        if kind(path) is not text or ".." in path.split(
            "/"
        ):  # a subclass could answer each question differently
            raise denied(f"the sandbox refuses {event}")
        place = path if path.startswith("/") else inside + path
        if place in devices or f"{place}/".startswith(inside):
            continue
        # the handle of a folder would take relative paths there
        if (
            change
            or not f"{place}/".startswith(known)
            or (event == "open" and status(place).st_mode >> 12 == 4)
        ):
            raise denied(f"the sandbox refuses {event}")
