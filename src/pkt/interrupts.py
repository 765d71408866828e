"""Ctrl-C, remembered: libraries turn the exception into one of their own (transformers: a missing module)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_heard: list[int] = []  # signals of this request


@contextmanager
def heard() -> Iterator[None]:
    """Remember a Ctrl-C while the block runs, and raise it in place of the error that a library made of it."""
    _heard.clear()
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()

    def hear(number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        signal.default_int_handler(number, frame)

    if ours:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
    except Exception as error:
        stop_if_heard(error)
        raise
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def stop_if_heard(error: Exception) -> None:
    """Raise KeyboardInterrupt if there was a Ctrl-C.

    Args:
        error: what a library made of it.
    """
    if _heard:
        raise KeyboardInterrupt from error
