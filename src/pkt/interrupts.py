"""Signals to stop: Ctrl-C remembered, as libraries turn it into errors of their own; both put off to a safe place."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_heard: list[int] = []  # signals of this request


@contextmanager
def heard() -> Iterator[None]:
    """Remember a Ctrl-C while the block runs, and raise it in place of the error that a library made of it."""
    _heard.clear()
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, _remember)
    try:
        yield
    except Exception as error:
        stop_if_heard(error)
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _remember(number: int, frame: FrameType | None) -> None:
    _heard.append(number)
    signal.default_int_handler(number, frame)


def stop_if_heard(error: Exception) -> None:
    """Raise KeyboardInterrupt if there was a Ctrl-C.

    Args:
        error: what a library made of it.
    """
    if _heard:
        raise KeyboardInterrupt from error


_STOPPING: Mapping[signal.Signals, tuple[Any, ...]] = {
    signal.SIGINT: (signal.default_int_handler, _remember),
    signal.SIGTERM: (signal.SIG_DFL,),
}
"""Signals that can be put off, and the handlers that do nothing but stop; any other is somebody's own, and stays."""


def stopped(where: str = "") -> str:
    """Return what is said at a stop, and of what the work has come to, where that is known."""
    return f"{f'stopped {where}'.rstrip()}; the same command resumes"


@dataclass(kw_only=True)
class Stop:
    """Whether this process was told to stop.

    Attributes:
        tell: told what is said before the process ends by a signal, which nobody can catch and say.
        asked: the signals, at most one.
    """

    tell: Callable[[str], object]
    asked: list[int] = field(default_factory=list)

    def obey(self, where: str) -> None:
        """Stop, if that was asked for: with KeyboardInterrupt, or by the signal itself.

        Args:
            where: what the work has come to; empty: nothing is said of it.
        """
        if signal.SIGINT in self.asked:
            raise KeyboardInterrupt(*filter(None, [where]))
        for number in self.asked:
            self.tell(stopped(where))
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            raise SystemExit(128 + number)  # the first process of a container does not end by its own signal


@contextmanager
def postponed(wanted: bool, tell: Callable[[str], object]) -> Iterator[Stop]:
    """Put off Ctrl-C and SIGTERM until the block looks (`Stop.obey`); a second one stops at once.

    Args:
        wanted: False: they stop at once, as anywhere.
        tell: see `Stop`.
    """
    stop = Stop(tell=tell)
    here = wanted and threading.current_thread() is threading.main_thread()
    found = {number: signal.getsignal(number) for number in _STOPPING}
    before = {number: found[number] for number, known in _STOPPING.items() if here and found[number] in known}

    def hear(number: int, _: FrameType | None) -> None:
        _put_back(before)
        stop.asked.append(number)

    for number in before:
        signal.signal(number, hear)
    try:
        yield stop
    finally:
        _put_back(before)
    stop.obey("")  # asked for behind the last look


def _put_back(before: dict[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
