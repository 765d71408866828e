"""The sandbox's child: reads programs, forks once for each, and answers how it ended.

    programs.py --a line of JSON--> this process --fork--> program
                                         |  --- nonce --->     |
                                         ^------ nonce --------' if its last statement was reached

The nonce is drawn after the fork, and no variable of the program's process holds it, so that a program finds it neither
in the frames above its own nor in memory from before the fork.

Run as ``python -s -P -S -B forkserver.py <options as JSON>`` without an environment; standard library only, nothing
from pkt is importable.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib.util
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn


def _load(name: str) -> Any:
    """Load a file that lies beside this one, with builtins of its own, which no program can change."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")  # noqa: PTH100, PTH118, PTH120
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    vars(module)["__builtins__"] = dict(vars(builtins))
    spec.loader.exec_module(module)
    return module


inside, verdict, native, confine, syscalls, audit, library = map(
    _load, ("inside", "verdict", "native", "confine", "syscalls", "audit", "library")
)
Layers = dict[str, set[str]]


def run(request: dict[str, Any], options: dict[str, Any], held: Layers) -> dict[str, Any]:
    """Run one program in a fork of this process; return how it ended, in the words of `sandbox.Outcome`, and why."""
    seconds, disk = request["timeout"], options["disk"]
    watched = "disk" not in held["namespaces"]  # the kernel bounds a disk of its own
    shared = request["folder"] if watched else confine.own_disk()
    if held["landlock"]:
        confine.rules(native, shared)
    with _folder(shared, options, held) as folder:
        reader, writer = os.pipe()
        gate, key = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(key)
            os.close(reader)
            _program(request["program"], seconds, options, held, folder, (gate, writer))
        os.close(writer)
        os.close(gate)
        nonce = secrets.token_bytes(16)
        try:
            with contextlib.suppress(BrokenPipeError):
                os.write(key, nonce)
            process, word = verdict.ready(child, reader)
            answer: dict[str, Any] = verdict.judged(
                child, reader, nonce, seconds, process, lambda: watched and _size(folder, disk) > disk, word
            )
        finally:
            os.close(key)
            os.close(reader)
        if watched and answer["outcome"] != "pass":
            _spacious(shared, disk)
        return answer


@contextlib.contextmanager
def _folder(shared: str, options: dict[str, Any], held: Layers) -> Iterator[str]:
    """Make a program's folder in the shared one; afterwards remove whatever is there."""
    folder = f"{shared}/{secrets.token_hex(8)}"  # a name that no earlier program could take
    os.mkdir(folder, 0o700)  # noqa: PTH102
    if os.geteuid() == 0 and held["user"]:
        os.chown(folder, options["user"], options["user"])
    try:
        yield folder
    finally:
        for entry in os.scandir(shared):
            _remove(entry.path)


def _spacious(shared: str, disk: int) -> None:
    """Check that the shared folder still has the room that a program is promised.

    Raises:
        HostError: it has not; the program may have failed for that reason.
    """
    try:
        room = os.statvfs(shared)
    except OSError as error:
        raise verdict.HostError(f"the temporary folder has gone: {error}") from error
    if room.f_bavail * room.f_frsize < disk or (room.f_files > 0 and room.f_favail < 64):
        raise verdict.HostError(f"the temporary folder {shared} has less than {disk >> 20} MB left")


def _remove(folder: str) -> None:
    """Remove a file or folder, even if the program made it unreadable or deeper than a path or a stack may be."""
    pending = [folder]
    with contextlib.suppress(OSError):
        os.unlink(folder)  # noqa: PTH108
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
    source: str, seconds: float, options: dict[str, Any], held: Layers, folder: str, channel: tuple[int, int]
) -> NoReturn:
    """Confine this fork, say that it is ready, and run the source."""
    gate, answer = channel
    write, leave = os.write, os._exit
    try:
        try:
            process = os.readlink("/proc/self").encode()  # noqa: PTH115 - in the numbers of this /proc, whatever they are
        except OSError:
            process = b""
        _confine(seconds, options, held, folder)
        write(answer, process + b"\n")
    except BaseException as error:
        write(answer, f"the sandbox's process: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        leave(0)
    inside.judge(source, folder, gate, answer)
    raise AssertionError("a judged program does not return")


def _confine(seconds: float, options: dict[str, Any], held: Layers, folder: str) -> None:
    os.setsid()
    os.chdir(folder)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    confine.limit(seconds, options["memory"], options["file_size"], options["files"])
    if held["landlock"]:
        confine.landlock(native, folder.rpartition("/")[0])
    if held["user"]:
        confine.drop(native, options["user"])
    if sys.platform.startswith("linux"):
        confine.die_with_parent(native)  # a change of user forgets it
    if held["seccomp"]:
        syscalls.filter_calls(native)
    native.forget()
    if "audit" in options["layers"]:
        audit.watch(set(audit.EVENTS).difference(*held.values()), folder, confine.readable())
    for name in ("os", "native", "confine", "syscalls", "audit", "library", "verdict"):
        del globals()[name]  # a program finds this module's names in the frames above its own


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


def _layers(options: dict[str, Any], held: Layers) -> Layers:
    """Return what each layer gives here, and choose a user that this machine knows."""
    tried: dict[str, Callable[[], set[str]]] = {
        "landlock": lambda: confine.landlock(native, "/dev/null"),
        "seccomp": lambda: syscalls.filter_calls(native),
        "user": lambda: confine.drop(native, options["user"]),
    }
    found = held | {
        name: confine.works(enter) if name in options["layers"] else set() for name, enter in tried.items()
    }
    if "user" in options["layers"] and not found["user"] and options["user"] != confine.NOBODY:
        options["user"] = confine.NOBODY  # a container may know no other
        return _layers(options, held)
    return found


def _reads_library(options: dict[str, Any]) -> set[str]:
    confine.drop(native, options["user"])
    return {"library"} if library.on_disk() else set()


def serve(options: dict[str, Any], requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the stream ends.

    Args:
        options: what `programs.Child` says.
        requests: a line of JSON each.
        answers: likewise.
    """
    spaces = confine.namespaces(native, options["disk"]) if "namespaces" in options["layers"] else set()
    if "signals" in spaces and (inner := os.fork()):
        _, status = os.waitpid(inner, 0)  # the child is the first process of the new namespace
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    confine.die_with_parent(native)
    inside.preload()
    held = _layers(options, {"namespaces": spaces})
    if held["user"] and not confine.works(lambda: _reads_library(options)):
        library.provide()
    confine.readable()
    confine.tasks()
    native.unlist(native, confine, syscalls, audit, library, verdict)
    gc.collect()
    gc.freeze()
    given = {name for name, what in held.items() if what} | ({"disk"} & spaces)
    _say(answers, {"layers": sorted(given)})
    if "interpreter" in options["layers"]:
        inside.detach(globals(), vars(confine), vars(verdict), vars(syscalls), vars(audit))
        inside.strip()
        inside.furnish()
    for line in requests:
        try:
            _say(answers, run(json.loads(line), options, held))
        except Exception as error:  # whatever it is, it says nothing about the program
            known = isinstance(error, (OSError, verdict.HostError))
            reason = str(error) if known else f"{type(error).__name__} in the sandbox: {error}"
            _say(answers, {"outcome": "error", "reason": reason})


def _say(answers: IO[bytes], message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches pkt, which ends this process
    output = sys.stdout.buffer
    try:
        serve(json.loads(sys.argv[1]), sys.stdin.buffer, output)
    except (OSError, RuntimeError) as error:
        _say(output, {"error": f"{type(error).__name__}: {error}"})
