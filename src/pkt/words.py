"""Rewrite the words of a command line for Hydra: flags first, short forms written out, folders quoted.

pkt analyze cka -m seed=0,1     ->  -m analyze.parts=[cka] seed=0,1
pkt report runs=a,b out=my=page ->  runs=['a','b'] out='my=page'
model.teacher.roles.like=llama  ->  ++model.teacher.roles.like=llama
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from pkt.errors import RequestError, nearest

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_ANY: tuple[str, ...] = ()
FLAGS: dict[
    str, tuple[str, ...] | None
] = {  # Hydra's; None: takes no value, else the values (none named: any)
    **dict.fromkeys(
        ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")
    ),
    **dict.fromkeys(("--shell-completion", "-sc")),
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), _INFO),
    **dict.fromkeys(
        ("--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"), _ANY
    ),
    "--experimental-rerun": _ANY,
}
_LONGEST, _DEEPEST = 20_000, 20  # characters and brackets of a word: Hydra's grammar needs minutes for more
_TEXTS = ("runs", "against", "out")  # of a report: folders and labels
# open mappings; `roles_of` and `pkt.data.records` know the names
_OPEN = re.compile(r"(model\.(teacher|student)\.roles|data\.columns)[.=]")


def hydra_words(verb: str, words: Sequence[str]) -> list[str]:
    """Return the words that Hydra is given.

    Args:
        verb: the first word of the command line.
        words: the words after it.

    Raises:
        RequestError: a bare word after `analyze` that is no part.
    """
    flags, overrides = _split_flags(words)
    if verb == "analyze":
        overrides = _named_parts(overrides)
    if verb == "report":
        overrides = _quoted_texts(overrides)
    return flags + [f"++{word}" if _OPEN.match(word) else word for word in overrides]


def named_plugins(words: Sequence[str]) -> list[str]:
    """Return the modules in `plugins=[...]`, whose options Hydra has to know before it reads the command line.

    Args:
        words: the command line after the verb.
    """
    values = [
        value for key, _, value in (word.lstrip("+").partition("=") for word in words) if key == "plugins"
    ]
    return [name for value in values for name in re.findall(r"[\w.]+", value)]


def named_conf_dir(words: Sequence[str]) -> str | None:
    """Return the folder of `--config-dir`.

    Args:
        words: as `hydra_words` returns them.
    """
    return next((value for flag, value in pairwise(words) if flag in ("--config-dir", "-cd")), None)


def named_search_path(words: Sequence[str]) -> list[str]:
    """Return the folders in `hydra.searchpath=[file://...]`; Hydra goes on without one that is not there.

    Args:
        words: as `hydra_words` returns them.
    """
    values = [word for word in words if word.lstrip("+").startswith("hydra.searchpath=")]
    return [folder for value in values for folder in re.findall(r"file://([^,\]'\"]+)", value)]


def _named_parts(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which bare words (`pkt analyze cka,maps`) are `analyze.parts=[cka,maps]`."""
    bare = [word for word in overrides if "=" not in word and not word.startswith(("+", "~"))]
    if not bare:
        return list(overrides)
    from pkt.checks import check_parts

    parts = [part for word in bare for part in word.split(",") if part]
    check_parts(parts)
    rest = [word for word in overrides if word not in bare]
    return [f"analyze.parts=[{','.join(parts)}]", *rest]


def _quoted_texts(overrides: Sequence[str]) -> list[str]:
    """Return a report's overrides with folders and labels quoted for Hydra, and `runs=a,b` as a list."""
    found = []
    for word in overrides:
        key, equals, value = word.partition("=")
        plain = key in _TEXTS and value not in ("", "null") and value[0] not in "[\"'"
        if plain:
            parts = [part for part in value.split(",") if part] if key == "runs" else [value]
            texts = ["'" + part.replace("'", "\\'") + "'" for part in parts]
            value = f"[{','.join(texts)}]" if key == "runs" else texts[0]
        found.append(key + equals + value)
    return found


def _split_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return flags (with their values) and overrides apart: Hydra's parser wants the flags first."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not (word.startswith("-") and len(word) > 1):
            overrides.append(_sane(word))
            continue
        flag, equals, value = word.partition("=")
        if flag not in FLAGS:
            raise RequestError(
                f"unknown flag '{flag}'{nearest(flag, FLAGS)}; allowed: {', '.join(FLAGS)}; settings have no dashes: "
                "key=value"
            )
        takes = FLAGS[flag]
        if takes is None:
            if equals:
                raise RequestError(f"{flag} takes no value, got '{value}'")
            flags.append(flag)
            continue
        optional = takes is _INFO
        if not equals and rest and (not optional or rest[0] in _INFO):
            value = rest.pop(0)
        flags += _valued(flag, takes, value or ("all" if optional else ""))
    return flags, overrides


def _valued(flag: str, takes: tuple[str, ...], value: str) -> list[str]:
    """Return a flag and its value as Hydra wants them."""
    if not value:
        allowed = f": {', '.join(takes)}" if takes else ""
        raise RequestError(f"{flag} takes a value{allowed}")
    if takes and value not in takes:
        raise RequestError(f"{flag}: got '{value}'; allowed: {', '.join(takes)}{nearest(value, takes)}")
    return [f"{flag}={value}"] if takes is _INFO and flag.startswith("--") else [flag, value]


def _sane(word: str) -> str:
    """Return an override, unless Hydra's grammar would be lost in it, or it could not be written down."""
    if word != word.encode("utf-8", "replace").decode("utf-8"):
        raise RequestError(f"{word!a}: no UTF-8 text; check the encoding of the terminal or the script")
    if "hydra.callbacks.guard" in word.partition("=")[0]:
        raise RequestError(
            f"{word}: the guard keeps your files and credentials; leave it, and add others beside it"
        )
    depth = deepest = 0
    for character in word:
        depth += (character in "[{(") - (character in "]})")
        deepest = max(deepest, depth)
    if len(word) > _LONGEST or deepest > _DEEPEST:
        raise RequestError(
            f"the override '{word[:40]}...' has {len(word):,} characters and {deepest} brackets in each other; "
            f"allowed: {_LONGEST:,} and {_DEEPEST}: put it into a config file"
        )
    return word
