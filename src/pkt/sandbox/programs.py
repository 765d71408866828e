"""Run generated programs, each in a confined process of its own.

    run_programs -> workers, each with one clean child interpreter (forkserver.py) -> a fork per program (confine.py)

Forking a small interpreter costs a few milliseconds; starting a new one costs many more. A program gets an empty
folder as its working directory, no environment, no output, and limits on CPU, wall clock, memory, file size, open
files and disk. It may start no process and no thread. Linux also takes away the network, other processes, the system
calls that lead to them, and all files but Python's library (read only) and that folder. These layers work
independently; where the kernel refuses one, an audit hook refuses the same calls from Python.

Limitations: a program whose objects are equal to everything, or that redefines what its tests call, passes its tests,
here as everywhere. Code that knows the interpreter's memory, or a hole in the kernel, can break out. Without
namespaces, Landlock and seccomp (macOS), native code can bypass the audit hook. Models are not attackers; code from
strangers needs a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pkt.errors import PktError

MEMORY = 512 * 2**20  # bytes of address space per program
FILE_SIZE = 16 * 2**20  # bytes per file that a program writes
DISK = 64 * 2**20
KERNEL = ("namespaces", "landlock", "seccomp")
GRACE = 10.0  # seconds that the child has, after a program's own, to answer


class Outcome(StrEnum):
    """How a program ended.

    `pass`: it reached its last statement. `fail`: it raised an exception. `refused`: the sandbox or the system denied
    it something. `timeout`: it ran too long. `crash`: it ended without an answer, or filled its disk.
    """

    PASS = "pass"
    FAIL = "fail"
    TIMEOUT = "timeout"
    CRASH = "crash"
    REFUSED = "refused"


def run_programs(programs: Sequence[str], *, timeout: float, workers: int = 2) -> list[Outcome]:
    """Run programs and return how each ended; equal programs run once.

    Args:
        programs: Python source; one passes if its last statement is reached without an exception or an exit.
        timeout: seconds of wall clock per program.
        workers: programs at a time.

    Returns:
        An outcome per program, in order.

    Raises:
        PktError: the child process cannot be started.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    distinct = list(dict.fromkeys(programs))
    for program in distinct:
        waiting.put(program)
    outcomes: dict[str, Outcome] = {}

    def work() -> None:
        with Child() as child, contextlib.suppress(queue.Empty):
            while True:
                program = waiting.get_nowait()
                outcomes[program] = child.run(program, timeout)

    count = min(workers, len(distinct))
    if count:
        with ThreadPoolExecutor(count) as pool:
            for future in [pool.submit(work) for _ in range(count)]:
                future.result()
    return [outcomes[program] for program in programs]


class Child:
    """One fork server, which is started again if a program ends it."""

    def __init__(self, *, kernel: Sequence[str] = KERNEL, disk: int = DISK) -> None:
        """Prepare a child; it starts with the first program.

        Args:
            kernel: the kernel's layers to use where it has them; none leaves only the audit hook (to test it).
            disk: bytes of all files of a program together, checked ten times a second.
        """
        self.options = {"kernel": list(kernel), "memory": MEMORY, "file_size": FILE_SIZE, "disk": disk}
        self.layers: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, program: str, timeout: float) -> Outcome:
        """Run one program; an unanswered request counts as a crash and restarts the child."""
        process = self._process or self._start()
        source = program.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no source
        try:
            _write(process.stdin, {"program": source, "timeout": timeout})
            return Outcome(_read(process.stdout, timeout + GRACE)["outcome"])
        except (EOFError, OSError):
            self.close()
            return Outcome.CRASH

    def close(self) -> None:
        """End the child and remove its folder."""
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    stream.close() if stream else None
            self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._folder = tempfile.TemporaryDirectory(prefix="pkt-sandbox-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        if os.geteuid() == 0:
            folder.chmod(0o711)  # nobody passes through it to its own folder
        options = json.dumps(self.options | {"folder": str(folder)})
        script = Path(__file__).with_name("forkserver.py")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(script), options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        self._process = process
        try:
            self.layers = tuple(_read(process.stdout, 60.0)["layers"])
        except (EOFError, OSError) as error:
            self.close()
            raise PktError(
                f"The sandbox for generated programs did not start: {sys.executable} -I {script.name} "
                "gave no answer. Check that it runs and that processes may be forked, "
                "or leave out the tasks whose answers are programs (metric pass@1)."
            ) from error
        return process


def _write(stream: IO[bytes] | None, message: dict[str, Any]) -> None:
    assert stream is not None
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _read(stream: IO[bytes] | None, seconds: float) -> dict[str, Any]:
    """Read one message, or raise EOFError when the child is gone or silent."""
    assert stream is not None
    if not select.select([stream], [], [], seconds)[0]:
        raise EOFError("no answer in time")
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the child is gone")
    message: dict[str, Any] = json.loads(line)
    return message
