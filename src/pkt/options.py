"""`pkt list` and `pkt copy`: what there is to choose from, and a file of it to change; Hydra is not imported.

pkt list                            groups, and how many options each has
pkt list model method               their options, with the first line of each file
pkt copy model=nano as=mine         ./conf/model/mine.yaml, comments and all
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pkt import console
from pkt.durable import write_atomically
from pkt.errors import RequestError, nearest
from pkt.searchpath import groups, option_files

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_NAMED = ("model",)  # groups whose files have the option's name in them
_COPY = "pkt copy <group>=<option> as=<new name>"


def show(words: Sequence[str]) -> int:
    """Print groups, or the options of some, and return the exit code.

    Args:
        words: names of groups, in the singular or the plural.

    Raises:
        RequestError: there is no such group.
    """
    known = groups()
    if not words:
        for name, own in known.items():
            console.say(f"{name:<12}{len(own):>3}   {', '.join(own)}")
        console.say("\npkt list <group> ...   says what each option is")
        return 0
    for group in [_group(word, known) for word in words]:
        files = option_files(group)
        width = max(map(len, files)) + 2
        console.say(group)
        for name, file in files.items():
            console.say(f"  {name:<{width}}{_first_line(file)}".rstrip())
    console.say(f"\n{_COPY}   writes a file of your own to change; plugins' options: pkt run -h")
    return 0


def copy(words: Sequence[str]) -> int:
    """Write an option's file into ./conf under another name, and return the exit code.

    Args:
        words: ``group=option`` and ``as=name``.

    Raises:
        RequestError: no such option, a name that is none or is taken, or a folder that cannot be written.
    """
    given = dict(word.partition("=")[::2] for word in words)
    name = given.pop("as", "")
    if len(given) != 1 or len(words) > 2:
        raise RequestError(f"pkt copy: got '{' '.join(words)}'; write {_COPY}")
    ((word, option),) = given.items()
    group = _group(word, groups())
    files = option_files(group)
    if option not in files:
        raise RequestError(
            f"{group}={option}: no such option; allowed: {', '.join(files)}{nearest(option, files)}"
        )
    name = name or f"my-{option}"
    if not _NAME.fullmatch(name):
        raise RequestError(f"as={name}: a file's name is expected: letters, digits, and - _ . + inside")
    target = Path("conf") / group / f"{name}.yaml"
    if name in files or target.exists():
        raise RequestError(f"{group}={name} is there already; choose another name: as=...")
    text = files[option].read_text(encoding="utf-8")
    if group in _NAMED:
        text = re.sub(r"(?m)^name:.*$", f"name: {name}", text, count=1)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text)
    except OSError as error:
        raise RequestError(f"pkt copy: {target.absolute()} cannot be written: {error.strerror}") from error
    console.say(f"{'wrote':<12}{target}")
    console.say(f"{'use it':<12}pkt run {_USES.get(group, f'{group}=*').replace('*', name)}")
    return 0


_USES = {"task": "benchmark.tasks=[*]", "term": "term@objective.terms.<name>=*"}
"""How options of groups are chosen that are no choice of a request; `*` is the option."""


def _group(word: str, known: dict[str, list[str]]) -> str:
    """Return a group by its name, or by that with an s behind it."""
    name = word if word in known else word.removesuffix("s")
    if name not in known:
        raise RequestError(f"'{word}': no such group; allowed: {', '.join(known)}{nearest(word, known)}")
    return name


def _first_line(file: Path) -> str:
    """Return the first line that says what an option is: a comment above its settings."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""
