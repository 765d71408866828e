"""Errors that a user can cause, each with one message that ends in the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence


class PktError(Exception):
    """The task failed for a reason outside the program: one message, no traceback, exit code 1."""

    exit_code = 1


class RequestError(PktError):
    """The request itself was wrong (config, data or models that do not fit): exit code 2."""

    exit_code = 2


FILE_LIKENESS = 0.7
"""Of names of files, which may be any: `nope` is half of `note.md`."""


def nearest(word: str, allowed: Iterable[str], likeness: float = 0.5) -> str:
    """Return `` (did you mean 'x'?)`` for the closest allowed name, or an empty string.

    Args:
        word: what the user wrote.
        allowed: the names that would have been valid.
        likeness: how alike they have to be, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=likeness)
    return f" (did you mean '{close[0]}'?)" if close else ""


def together(checks: Iterable[Callable[[], object]]) -> None:
    """Run checks one after the other, and refuse once, with all that they refuse.

    Args:
        checks: none of which needs another one to have passed.

    Raises:
        RequestError: one message.
    """
    found: list[str] = []
    for check in checks:
        try:
            check()
        except RequestError as error:
            found.append(str(error))
    if found:
        raise RequestError(listed(found))


def listed(faults: Sequence[str]) -> str:
    """Return one message of all that is wrong."""
    return faults[0] if len(faults) == 1 else "\n  ".join([f"{len(faults)} things are wrong:", *faults])


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def in_a_line(error: BaseException) -> str:
    """Return an exception's whole message as one line without its full stop, or the name of its class."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


_RUST = re.compile(
    r"os error (\d+)|code: (\d+)"
)  # how libraries in Rust tell the system's number in their text


def system_number(error: BaseException) -> int | None:
    """Return the system's number of an error (`errno`): its own, or the one that safetensors or tokenizers tell."""
    if isinstance(error, OSError):
        return error.errno
    plain = type(error).__name__ in ("SafetensorError", "Exception")  # the classes that they raise
    told = _RUST.search(str(error)) if plain else None
    return int(told[1] or told[2]) if told else None
