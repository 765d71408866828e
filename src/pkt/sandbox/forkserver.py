"""The sandbox's child: reads programs, forks once for each, and answers how it ended.

    programs.py --a line of JSON--> this process --fork--> program
                                         |  --- nonce --->     |
                                         ^------ nonce --------' if its last statement was reached

The nonce is drawn after the fork, and no variable of the program's process holds it, so that a program finds it neither
in the frames above its own nor in memory from before the fork.

Run as ``python -I -S -B forkserver.py <options as JSON>``; standard library only, nothing from pkt is importable.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import secrets
import select
import signal
import sys
import time
from typing import Any, NoReturn

# loaded before the fork, because the user `nobody` may lack the right to read the interpreter's own folder
PRELOAD = (
    "abc array base64 bisect calendar cmath collections copy csv dataclasses datetime decimal enum fractions functools "
    "hashlib heapq io itertools json math numbers operator pprint queue random re resource select signal socket "
    "statistics string subprocess textwrap threading time traceback types typing unicodedata unittest uuid zlib"
)
FAILED, REFUSED = b"fail", b"refused"
SLICE = 0.1  # seconds between looks at the disk that a program uses


def _load(name: str) -> Any:
    """Load a file that lies beside this one (the isolated interpreter has no path to it)."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")  # noqa: PTH100, PTH118, PTH120
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


confine, syscalls, audit = _load("confine"), _load("syscalls"), _load("audit")


def run(source: str, seconds: float, options: dict[str, Any], held: dict[str, set[str]]) -> str:
    """Run one program in a fork of this process and return how it ended, in the words of `sandbox.Outcome`."""
    folder = f"{options['folder']}/{secrets.token_hex(8)}"  # a name that no earlier program could take
    os.mkdir(folder)  # noqa: PTH102
    if os.geteuid() == 0:
        os.chown(folder, confine.NOBODY, confine.NOBODY)
    reader, writer = os.pipe()
    gate, key = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(key)
        _program(source, seconds, options, held, folder, (gate, writer))
    os.close(writer)
    os.close(gate)
    nonce = secrets.token_bytes(16)
    try:
        os.write(key, nonce)
        os.close(key)
        return _verdict(child, reader, nonce, seconds, folder, options["disk"])
    finally:
        os.close(reader)
        _remove(folder)


def _remove(folder: str) -> None:
    """Remove a program's folder, even if the program made it unreadable or deeper than a path or a stack may be."""
    pending = [folder]
    while pending:
        place = pending.pop()
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)  # noqa: PTH101
            for entry in list(os.scandir(place)):
                if entry.is_dir(follow_symlinks=False):  # moved up, so that no path grows
                    lifted = f"{folder}.{secrets.token_hex(8)}"
                    os.chmod(entry.path, 0o700)  # noqa: PTH101
                    os.rename(entry.path, lifted)  # noqa: PTH104
                    pending.append(lifted)
                else:
                    os.unlink(entry.path)  # noqa: PTH108
            os.rmdir(place)  # noqa: PTH106


def _program(
    source: str,
    seconds: float,
    options: dict[str, Any],
    held: dict[str, set[str]],
    folder: str,
    channel: tuple[int, int],
) -> NoReturn:
    """Confine this fork, run the source, and write the nonce if its last statement was reached."""
    try:
        _confine(seconds, options, held, folder)
        send_word = os.write
        try:
            # read before the program runs and kept on the interpreter's stack, where no frame shows it
            send_word(channel[1], os.read(channel[0], 16) + _completed(source))
        except PermissionError:  # the kernel's and the audit hook's
            send_word(channel[1], REFUSED)
        except BaseException:  # SystemExit and KeyboardInterrupt are failures too
            send_word(channel[1], FAILED)
    finally:
        os._exit(0)


def _confine(seconds: float, options: dict[str, Any], held: dict[str, set[str]], folder: str) -> None:
    os.setsid()
    os.chdir(folder)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    confine.limit(seconds, options["memory"], options["file_size"])
    if held["landlock"]:
        confine.landlock(folder)
    confine.drop()
    if held["seccomp"]:
        syscalls.filter_calls()
    for name in [name for name in sys.modules if name.startswith(("ctypes", "_ctypes"))]:
        vars(sys.modules.pop(name)).clear()  # done with; it would give a program the interpreter's memory
    missing = set(audit.EVENTS).difference(*held.values())
    audit.watch(missing, folder, confine.readable())


def _completed(source: str) -> bytes:
    """Run a program, and return only if it reaches its end."""
    exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
    return b""


def _verdict(child: int, reader: int, nonce: bytes, seconds: float, folder: str, disk: int) -> str:
    """Wait for the fork's answer until its time is over or its disk is full, then end its whole session."""
    deadline, word = time.monotonic() + seconds, b""
    ready: list[int] = []
    while len(word) < len(nonce) and (left := deadline - time.monotonic()) > 0:
        ready = select.select([reader], [], [], min(left, SLICE))[0]
        if not ready and _size(folder, disk) <= disk:
            continue
        part = os.read(reader, len(nonce)) if ready else b""
        if not part:
            ready = [reader]  # too much on the disk, or the end of the stream: not a matter of time
            break
        word += part
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if word in (nonce, FAILED, REFUSED):
        return {nonce: "pass", FAILED: "fail", REFUSED: "refused"}[word]
    late = not ready or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    return "timeout" if late else "crash"


def _size(folder: str, most: int) -> int:
    """Return the bytes below a folder, counted until they exceed `most`; a file counts as at least a page."""
    total, folders = 0, [folder]
    while folders and total <= most:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                total += max(4096, entry.stat(follow_symlinks=False).st_blocks * 512)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                if total > most:
                    break
    return total


def serve(options: dict[str, Any]) -> None:
    """Answer requests until the stream ends."""
    wanted = options["kernel"]
    held = {"namespaces": confine.namespaces() if "namespaces" in wanted else set()}
    if "signals" in held["namespaces"] and (inner := os.fork()):
        _, status = os.waitpid(inner, 0)  # the child is the first process of the new namespace
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    confine.die_with_parent()
    for name in PRELOAD.split():
        importlib.import_module(name)
    layers = {"landlock": lambda: confine.landlock(options["folder"]), "seccomp": syscalls.filter_calls}
    held |= {name: confine.works(enter) if name in wanted else set() for name, enter in layers.items()}
    confine.readable()
    gc.collect()
    gc.freeze()
    _say({"layers": sorted(name for name, given in held.items() if given)})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _say({"outcome": run(request["program"], request["timeout"], options, held)})


def _say(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches pkt, which ends this process
    serve(json.loads(sys.argv[1]))
