"""An audit hook, which a program cannot remove, refuses calls of Python to a generated program.

Where layers of the kernel are missing, the hook refuses the Python calls that these layers would have refused. It
always refuses calls that show a program the interpreter that runs it: the heap, tracing, foreign functions, another
interpreter. Standard library only, loaded by the sandbox's child.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
# refused where the kernel's layer is missing: layer -> prefixes of audit events
EVENTS: dict[str, tuple[str, ...]] = {
    "network": ("socket.",),
    "signals": ("os.kill", "signal.pthread_kill", "fcntl."),
    "files": (
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
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
}
# always refused: starting another program, and looking into the interpreter
ESCAPES = (
    *("ctypes.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "os.spawn", "pty.spawn"),
    *("gc.get_", "sys.settrace", "sys.setprofile", "sys._current_", "cpython.PyInterpreterState_New"),
)
# calls that raise no audit event and are removed from their modules: layer -> names
UNHEARD: dict[str, tuple[str, ...]] = {
    "network": (),
    "signals": ("pidfd_open", "pidfd_send_signal"),
    "files": ("mkfifo", "mknod"),
    "metadata": (),
}
MODULES = ("_ctypes", "_testcapi", "_testinternalcapi", "_xxsubinterpreters", "_interpreters")


def watch(missing: set[str], writable: str, readable: Iterable[str]) -> None:
    """Install the hook: it refuses `ESCAPES` and the `EVENTS` of missing layers.

    Args:
        missing: layers that the kernel does not provide.
        writable: the folder that the program may write to.
        readable: folders and files that it may read.
    """
    for name in (name for layer in missing for name in UNHEARD[layer]):
        for module in ("os", "posix", "signal", "_signal"):
            if module in sys.modules:
                vars(sys.modules[module]).pop(name, None)
    sys.addaudithook(_hook(missing, _paths(writable, readable)))


def _hook(missing: set[str], allows: Callable[..., bool]) -> Callable[[str, tuple[Any, ...]], None]:
    refused = tuple(event for layer in sorted(missing) for event in EVENTS[layer]) + ESCAPES
    guarded = ("open", "os.listdir", "os.scandir") if "files" in missing else ()

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event in guarded and not allows(event, *details):
            raise PermissionError(f"the sandbox refuses {event} of {details[0]!r}")
        if event.startswith(refused) or (event == "import" and details[0] in MODULES):
            raise PermissionError(f"the sandbox refuses {event}")

    return hook


def _paths(writable: str, readable: Iterable[str]) -> Callable[..., bool]:
    """Return a function that says whether a path may be opened or listed.

    Paths are compared as text, without asking any function that a program could patch. A program may neither change
    its folder nor make links, so it cannot change what a path means.
    """
    inside = writable + "/"
    known = tuple(form + "/" for path in readable for form in (path, os.path.realpath(path)))
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    stat, folder, kind = os.stat, 0o040000, 0o170000

    def is_folder(place: str) -> bool:
        try:
            return stat(place).st_mode & kind == folder
        except (OSError, ValueError):
            return False

    def allows(event: str, path: Any, mode: Any = None, flags: Any = 0) -> bool:
        if path is None or isinstance(path, int):
            return not flags & writes
        text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
        if not isinstance(text, str) or ".." in text.split("/"):
            return False
        place = text if text.startswith("/") else inside + text
        if event == "open" and is_folder(place):  # its handle would take relative paths elsewhere
            return False
        if place in DEVICES or f"{place}/".startswith(inside):
            return True
        return not flags & writes and f"{place}/".startswith(known)

    return allows
