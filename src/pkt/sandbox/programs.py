"""Run generated programs, each in a confined process of its own.

    run_programs -> workers, each with one clean child interpreter (forkserver.py) -> a fork per program (confine.py)

Forking a small interpreter costs a few milliseconds; starting a new one costs many more. A program gets an empty
folder as its working directory, no environment, no output, and limits on its own time, memory, files and disk. It may
start threads and no process. Linux also takes away the network, other processes, all system calls but those that Python
needs, and all files but Python's library (read only) and that folder. These layers work independently; where the kernel
refuses one, an audit hook refuses the same calls from Python, and one line says so.

A verdict is about the program. When the machine is at fault (no space, no memory, no process, a library that cannot be
read, no time to run), the outcome is `error`; the program is run once more in a fresh child, and if that fails too the
whole call fails. Verdicts other than `pass` count only once a right program has passed after them.

SECURITY.md says what is promised and what is not.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import queue
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pkt.errors import PktError

MEMORY = 512 * 2**20  # bytes of address space per program
FILE_SIZE = 16 * 2**20  # bytes per file that a program writes
FILES = 256  # open at a time
DISK = 64 * 2**20
LAYERS = ("namespaces", "landlock", "seccomp", "user", "audit", "interpreter")
START = 120.0  # seconds that a child has to start
GRACE = (
    20,
    180.0,
)  # times a program's seconds, and seconds more, until a child that does not answer is given up
PROOF = 2.0  # seconds after which verdicts other than `pass` are confirmed by a right program
USERS = (61184, 4336)  # numbers that systemd leaves to services without a user of their own
# needs what every program is promised: the library, room in files, a thread, memory
RIGHT = """
import colorsys, encodings.cp1253, logging, pathlib, tempfile, threading
with open("own", "wb") as file:
    file.write(bytes(2**20))
with tempfile.NamedTemporaryFile() as file:
    file.write(bytes(2**16))
thread = threading.Thread(target=int)
thread.start()
thread.join()
room = bytearray(2**27)
"""
_log = logging.getLogger(__name__)
_numbers = itertools.count()


class Outcome(StrEnum):
    """How a program ended.

    `pass`: it reached its last statement. `fail`: it raised an exception. `refused`: the sandbox or the system denied
    it something. `timeout`: it ran too long. `crash`: it ended without an answer, or filled its disk. `error`: the
    machine or the sandbox failed, and nothing is known about the program.
    """

    PASS = "pass"
    FAIL = "fail"
    TIMEOUT = "timeout"
    CRASH = "crash"
    REFUSED = "refused"
    ERROR = "error"


def run_programs(programs: Sequence[str], *, timeout: float, workers: int = 2) -> list[Outcome]:
    """Run programs and return how each ended; equal programs run once.

    Args:
        programs: Python source; one passes if its last statement is reached without an exception or an exit.
        timeout: seconds per program, without those in which the machine did not let it run.
        workers: programs at a time.

    Returns:
        An outcome per program, in order; none is `error`.

    Raises:
        PktError: the machine fails a program twice, or a child process cannot be started.
    """
    distinct = list(dict.fromkeys(programs))
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for program in distinct:
        waiting.put(program)
    outcomes: dict[str, Outcome] = {}

    def work() -> None:
        try:
            with Child() as child:
                outcomes.update(_judged(child, _taken(waiting), timeout))
        except BaseException:
            for _ in _taken(waiting):  # no need to go on elsewhere: nothing will be scored
                pass
            raise

    count = min(workers, len(distinct))
    if count:
        with ThreadPoolExecutor(count) as pool:
            for future in [pool.submit(work) for _ in range(count)]:
                future.result()
    return [outcomes[program] for program in programs]


def _taken(waiting: queue.SimpleQueue[str]) -> Iterator[str]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield waiting.get_nowait()


def _judged(child: Child, programs: Iterator[str], timeout: float) -> dict[str, Outcome]:
    """Run programs one after another; whatever did not pass is confirmed, or run once more in a fresh child."""
    found: dict[str, Outcome] = {}
    doubtful: list[str] = []
    since = time.monotonic()
    for program in programs:
        found[program] = _asked(child, program, timeout)
        if found[program] is not Outcome.PASS:
            doubtful.append(program)
        if doubtful and time.monotonic() - since > PROOF:
            found |= _confirmed(child, doubtful, timeout)
            doubtful, since = [], time.monotonic()
    return found | _confirmed(child, doubtful, timeout) if doubtful else found


def _asked(child: Child, program: str, timeout: float) -> Outcome:
    """Run a program, once more in a fresh child if the machine was at fault."""
    outcome = child.run(program, timeout)
    if outcome is Outcome.ERROR:
        child.close()
        outcome = child.run(program, timeout)
    if outcome is Outcome.ERROR:
        raise _failed(child)
    return outcome


def _confirmed(child: Child, doubtful: Sequence[str], timeout: float) -> dict[str, Outcome]:
    """Return nothing if a right program passes now, else how the programs end in a fresh child where one does."""
    if child.well():
        return {}
    child.close()
    found = {program: _asked(child, program, timeout) for program in doubtful}
    if not child.well():
        raise _failed(child)
    return found


def _failed(child: Child) -> PktError:
    return PktError(
        f"Generated programs cannot be judged on this machine now: {child.reason}. This was tried twice, and nothing "
        "is scored or stored. Mend it (space in the temporary folder or another TMPDIR, memory, processes, Python's "
        "library) and run the same command again, or leave out the tasks whose answers are programs (metric pass@1)."
    )


class Child:
    """One fork server, which is started again if it has ended."""

    def __init__(self, *, layers: Sequence[str] = LAYERS, disk: int = DISK) -> None:
        """Prepare a child; it starts with the first program.

        Args:
            layers: those to use where the machine has them; leaving some out is for tests.
            disk: bytes of all files of a program together.
        """
        self.options: dict[str, Any] = {
            "layers": list(layers),
            "memory": MEMORY,
            "file_size": FILE_SIZE,
            "files": FILES,
            "disk": disk,
            "user": USERS[0] + (os.getpid() + next(_numbers)) % USERS[1],
        }
        self.layers: tuple[str, ...] = ()
        self.reason = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, program: str, timeout: float) -> Outcome:
        """Run one program; `reason` then says why it ended as it did, where that is known.

        Raises:
            PktError: the child does not start, twice, or a right program fails in it.
        """
        if self._process is None:
            self._start()
        return self._ask(program, timeout)

    def well(self) -> bool:
        """Return whether a program that needs what is promised to all passes; `reason` says why not."""
        outcome = self._ask(RIGHT, 60.0)
        if outcome not in (Outcome.PASS, Outcome.ERROR):
            self.reason = f"a right program ends in {outcome}{self.reason and ': '}{self.reason}"
        return outcome is Outcome.PASS

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

    def _ask(self, program: str, timeout: float) -> Outcome:
        """Send a program and return its outcome; without an answer the child is closed."""
        assert self._process is not None
        folder = self._folder.name if self._folder else ""
        try:
            _write(self._process.stdin, {"program": program, "timeout": timeout, "folder": folder})
            answer = _read(self._process.stdout, GRACE[0] * timeout + GRACE[1])
        except (EOFError, OSError) as error:
            code = self._process.poll()
            self.close()
            answer = {"outcome": "error", "reason": f"the sandbox's server ended ({error}, exit code {code})"}
        self.reason = answer.get("reason", "")
        return Outcome(answer["outcome"])

    def _start(self) -> None:
        """Start the server, once more if a right program does not pass in it."""
        for _ in range(2):
            try:
                self._launch()
                if self.well():
                    _tell(self.layers)
                    return
            except (EOFError, OSError) as error:
                self.reason = self.reason or f"{sys.executable} gave no answer ({error})"
            self.close()
        raise _failed(self)

    def _launch(self) -> None:
        self.reason = ""
        script = Path(__file__).with_name("forkserver.py")
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-S", "-B", str(script), json.dumps(self.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            # sets have the same order each time, so that a verdict repeats; and threads share what malloc
            # reserves, of which each would otherwise take 64 MB of a program's address space
            env={"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1"},
            start_new_session=True,
        )
        told = _read(self._process.stdout, START)
        if "error" in told:
            self.reason = str(told["error"])
            raise EOFError
        self.layers = tuple(told["layers"])
        if "disk" not in self.layers:
            self._folder = tempfile.TemporaryDirectory(prefix="pkt-sandbox-", ignore_cleanup_errors=True)
            if os.geteuid() == 0:
                Path(self._folder.name).chmod(0o711)  # the program's user passes through it to its own folder


@functools.cache
def _tell(layers: tuple[str, ...]) -> None:
    """Say once which layers hold, and loudly if one is missing."""
    missing = [name for name in ("namespaces", "landlock", "seccomp", "user") if name not in layers]
    if missing:
        _log.warning(
            "generated programs run without %s: this machine refuses it, and an audit hook stands in (SECURITY.md)",
            ", ".join(missing),
        )
    else:
        _log.info("generated programs are confined by %s", ", ".join(layers))


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
