"""The sandbox's child: reads programs, forks for each, answers with a verdict.

    sandbox.py --length-prefixed JSON--> this process --fork--> program
                                              ^------ nonce ------'

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
import shutil
import signal
import struct
import sys
import time
from typing import Any, BinaryIO, NoReturn

# loaded before the fork, because nobody may lack the right to read the interpreter's own folder
PRELOAD = (
    "abc array base64 bisect calendar cmath collections copy csv dataclasses datetime decimal enum fractions functools "
    "hashlib heapq io itertools json math numbers operator queue random re statistics string textwrap threading time "
    "types typing unicodedata uuid"
)
FAILED = b"fail"


def _load(name: str) -> Any:
    """Load a file that lies beside this one (the isolated interpreter has no path to it)."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")  # noqa: PTH100, PTH118, PTH120
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


confine = _load("confine")


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one length-prefixed JSON message; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    message: dict[str, Any] = json.loads(stream.read(struct.unpack("!I", head)[0]))
    return message


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one length-prefixed JSON message."""
    data = json.dumps(message).encode()
    stream.write(struct.pack("!I", len(data)) + data)
    stream.flush()


def run(source: str, seconds: float, options: dict[str, Any], missing: set[str]) -> str:
    """Run one program in a fork of this process and return ``pass``, ``fail``, ``timeout`` or ``crash``."""
    folder = f"{options['folder']}/run"
    os.mkdir(folder)  # noqa: PTH102
    if os.geteuid() == 0:
        os.chown(folder, confine.NOBODY, confine.NOBODY)
    nonce = secrets.token_bytes(16)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _program(source, seconds, options, missing, folder, writer, nonce)
    os.close(writer)
    try:
        return _verdict(child, reader, nonce, seconds)
    finally:
        os.close(reader)
        shutil.rmtree(folder, ignore_errors=True)


def _program(
    source: str,
    seconds: float,
    options: dict[str, Any],
    missing: set[str],
    folder: str,
    writer: int,
    nonce: bytes,
) -> NoReturn:
    """Confine this fork, run the source, and write the nonce if its last statement was reached."""
    verdict = FAILED
    try:
        os.setsid()
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        confine.limit(seconds, options["memory"], options["file_size"])
        confine.drop()
        confine.watch(missing, folder)
        try:
            exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
            verdict = nonce
        except BaseException:  # SystemExit and KeyboardInterrupt are failures too
            verdict = FAILED
        os.write(writer, verdict)
    finally:
        os._exit(0)


def _verdict(child: int, reader: int, nonce: bytes, seconds: float) -> str:
    """Wait for the fork's word until its time is over, then end its whole session."""
    deadline, word = time.monotonic() + seconds, b""
    ready: list[int] = []
    while len(word) < len(nonce) and (left := deadline - time.monotonic()) > 0:
        ready = select.select([reader], [], [], left)[0]
        part = os.read(reader, len(nonce)) if ready else b""
        if not part:
            break
        word += part
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if word == nonce:
        return "pass"
    if word == FAILED:
        return "fail"
    late = not ready or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    return "timeout" if late else "crash"


def serve(options: dict[str, Any]) -> None:
    """Answer requests until the stream ends."""
    layers = confine.namespaces() if options["namespaces"] else set()
    if "signals" in layers and (inner := os.fork()):
        _, status = os.waitpid(inner, 0)  # the child is the first process of the new namespace
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    confine.die_with_parent()
    for name in PRELOAD.split():
        importlib.import_module(name)
    layers |= confine.landlock(options["folder"]) if options["namespaces"] else set()
    missing = set(confine.EVENTS) - layers
    gc.collect()
    gc.freeze()
    send(sys.stdout.buffer, {"layers": sorted(layers)})
    while (request := receive(sys.stdin.buffer)) is not None:
        send(sys.stdout.buffer, {"outcome": run(request["program"], request["timeout"], options, missing)})


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches pkt, which ends this process
    serve(json.loads(sys.argv[1]))
