"""`--cfg job`: the composed request, with a mark behind every key that the command line has set.

words -> keys and groups that they name; Hydra's YAML -> lines by dotted key -> `lr: 0.001  # set here`
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

MARK = "  # set here"
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w@./-]+):(?P<rest>.*)")
_SETTING = re.compile(r"\+{0,2}(?P<key>[\w./-]+)(?:@[\w.]+)?=(?P<value>.*)", re.DOTALL)


@contextmanager
def marked(words: Sequence[str]) -> Iterator[None]:
    """Mark what the words have set in the YAML that Hydra prints while the block runs, where `--cfg` asks for it.

    Args:
        words: flags and overrides.
    """
    if not {"--cfg", "-c"} & {word.partition("=")[0] for word in words}:
        yield
        return
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        lines = printed.getvalue().split("\n")  # and at no other separator, which a value may hold
        # a reader who has gone, or a full disk, is told by who asks
        sys.stdout.write("\n".join(_told(lines, _named(words), _package(words))))
        sys.stdout.flush()


def _named(words: Sequence[str]) -> set[str]:
    """Return the keys, and the groups, that overrides name."""
    found = (_SETTING.fullmatch(word) for word in words if not word.startswith("-"))
    return {setting["key"].replace("/", ".") for setting in found if setting}


def _package(words: Sequence[str]) -> str:
    """Return the part of the config that `-p` asks for, with a dot behind it."""
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        if flag in ("-p", "--package") and value not in ("", "_global_"):
            return f"{value}."
    return ""


def _told(lines: Sequence[str], named: set[str], package: str) -> Iterator[str]:
    """Yield the lines, with marks; a value that goes on in the next line would take a mark for its own text."""
    path: list[tuple[int, str]] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        found = _LINE.fullmatch(line)
        if found is None:
            yield line
            continue
        depth = len(found["indent"])
        path = [*(entry for entry in path if entry[0] < depth), (depth, found["key"])]
        dotted = package + ".".join(key for _, key in path)
        goes_on = found["rest"].strip() and (
            not following or len(following) - len(following.lstrip()) > depth
        )
        yield line + (MARK if dotted in named and not (goes_on and following) else "")
