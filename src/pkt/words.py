"""Rewrite the words of a command line for Hydra: flags first, short forms written out, folders quoted.

pkt analyze cka -m seed=0,1     ->  -m analyze.parts=[cka] seed=0,1
pkt report runs=a,b out=my=page ->  runs=['a','b'] out='my=page'
model.teacher.roles.like=llama  ->  ++model.teacher.roles.like=llama
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TAKES_VALUE = {"-c", "-p", "-cp", "-cn", "-cd", "--cfg", "--package", "--config-path", "--config-name"}
_TAKES_VALUE |= {"--config-dir", "--experimental-rerun"}
_INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
_TEXTS = ("runs", "against", "out")  # of a report: folders and labels
_ROLES = re.compile(r"model\.(teacher|student)\.roles[.=]")  # an open mapping; `roles_of` knows the names


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
    return flags + [f"++{word}" if _ROLES.match(word) else word for word in overrides]


def named_plugins(words: Sequence[str]) -> list[str]:
    """Return the modules in `plugins=[...]`, whose options Hydra has to know before it reads the command line.

    Args:
        words: the command line after the verb.
    """
    values = [
        value for key, _, value in (word.lstrip("+").partition("=") for word in words) if key == "plugins"
    ]
    return [name for value in values for name in re.findall(r"[\w.]+", value)]


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
            overrides.append(word)
        elif word in ("--info", "-i"):
            flags.append(f"--info={rest.pop(0) if rest and rest[0] in _INFO else 'all'}")
        else:
            flags.append(word)
            if word in _TAKES_VALUE and rest:
                flags.append(rest.pop(0))
    return flags, overrides
