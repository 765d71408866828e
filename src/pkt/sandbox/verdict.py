"""How a program ended, seen from outside: its answer, its own time, its disk, and the signal that ended it.

The time that counts is the program's own: the wall clock without the time in which the machine let it wait for a
processor, or stood still. An end that only the machine can have caused is an `error`, never a verdict.

Standard library only, loaded by the sandbox's child.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

SLICE = 0.1  # seconds between looks at a program
PATIENCE = (
    20,
    60,
)  # the machine has so many times a program's seconds, and as many more, before it is too busy
READY = 60.0  # seconds until a fork has confined itself
WORDS = {b"fail": "fail", b"refused": "refused"}
Answer = dict[str, Any]


class HostError(Exception):
    """The machine, not the program, is at fault."""


class Clock:
    """A program's own seconds."""

    def __init__(self, process: str) -> None:
        """Start it.

        Args:
            process: the program's number in /proc, which counts how long it waited for a processor; empty: unknown.
        """
        self._file = f"/proc/{process}/schedstat" if process else ""
        self._last, self._waited, self.used = time.monotonic(), self._waiting(), 0.0

    def look(self) -> float:
        """Return the seconds until now."""
        now, waited = time.monotonic(), self._waiting()
        gap = now - self._last
        self.used += max(0.0, gap - max(waited - self._waited, gap - 2 * SLICE, 0.0))
        self._last, self._waited = now, max(waited, self._waited)
        return self.used

    def _waiting(self) -> float:
        try:
            with open(self._file, encoding="ascii") as file:  # noqa: PTH123
                return int(file.read().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0


def ready(child: int, reader: int) -> tuple[str, bytes]:
    """Wait until a fork has confined itself; return its number in /proc, and what the program has answered already.

    Raises:
        HostError: it could not.
    """
    line, until = b"", time.monotonic() + READY
    while b"\n" not in line:
        if not select.select([reader], [], [], max(0.0, until - time.monotonic()))[0]:
            end(child, 0)
            raise HostError(f"a process was not ready within {READY:.0f} s")
        part = os.read(reader, 4096)
        if not part:
            status, _ = end(child, SLICE)
            raise HostError(
                f"a process ended before the program began (status {status}) {line.decode()}".strip()
            )
        line += part
    first, _, rest = line.partition(b"\n")
    word = first.decode("utf-8", "replace")
    if word and not word.isdigit():
        end(child, SLICE)
        raise HostError(word)
    return word, rest


def judged(
    child: int,
    reader: int,
    nonce: bytes,
    seconds: float,
    process: str,
    full: Callable[[], bool],
    word: bytes = b"",
) -> Answer:
    """Wait for a program's answer until its time is over or its disk is full, then end it.

    Args:
        child: its process.
        reader: where it answers.
        nonce: the answer of a program that has reached its end.
        seconds: of its own time.
        process: its number in /proc, or an empty string.
        full: says whether its disk is too full.
        word: what it has answered already.

    Raises:
        HostError: the machine gave it no time, or ended it.
    """
    clock, latest = Clock(process), time.monotonic() + PATIENCE[0] * seconds + PATIENCE[1]
    late, over = False, word == nonce
    while not over:
        left = seconds - clock.look()
        if time.monotonic() > latest:
            end(child, 0)
            raise HostError("the machine is too busy: a program got no time to run")
        late = left <= 0
        if select.select([reader], [], [], max(0.0, min(left, SLICE)))[0]:
            part = os.read(reader, 4096)
            word, late = word + part, False
            over = not part or word == nonce or len(word) > 4096
        else:
            over = late or full()
    status, cpu = end(child, 0 if late or word else SLICE)
    if word == nonce:
        return {"outcome": "pass"}
    kind, _, text = word.partition(b" ")
    if kind in WORDS:
        return {"outcome": WORDS[kind], "reason": text.decode("utf-8", "replace")}
    if status == -signal.SIGKILL and cpu < seconds:
        raise HostError("a program was killed from outside; perhaps the machine has no memory left")
    late = late or status in (-signal.SIGXCPU, -signal.SIGKILL)
    return {"outcome": "timeout" if late else "crash"}


def end(child: int, patience: float) -> tuple[int | None, float]:
    """Wait a moment for a process, then end it and its group.

    Returns:
        Its exit code, negative for a signal, None if it was ended here; and its seconds of CPU.
    """
    until = time.monotonic() + patience
    process, status, usage = os.wait4(child, os.WNOHANG)
    while not process and time.monotonic() < until:
        time.sleep(0.001)
        process, status, usage = os.wait4(child, os.WNOHANG)
    for stop in (os.killpg, *(() if process else (os.kill,))):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            stop(child, signal.SIGKILL)
    if not process:
        _, _, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status) if process else None, usage.ru_utime + usage.ru_stime
