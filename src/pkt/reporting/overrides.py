"""A run's settings as the command line takes them: keys, values in Hydra's grammar, and words for a shell.

settings, choices and command of a run ──> overrides: key -> value                (tables and labels)
                                       └─> written_out: the command with all of them   (for a shell)
"""

from __future__ import annotations

import logging
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pkt.run_files import REQUEST
from pkt.secrets import HIDDEN

log = logging.getLogger(__name__)

STRATEGY = "._target_"  # a setting that ends in this names the class of a strategy
_BARE = re.compile(r"[A-Za-z_/][\w./\\+%@?|:-]*")  # text that needs no quotes
_WORDS = ("null", "true", "false", "nan", "inf")  # which Hydra reads as something else
_SIGNS = "+~"  # before a key: add it, take it away
_QUOTE = re.compile(r"(\\*)'|(\\+)$")  # a quote, or the end, after backslashes
_ASKED = ("benchmark", "method", "model")  # groups that a setting, or a field of a run, names
Run = Mapping[str, Any]


def as_value(value: Any) -> str:
    """Return a plain value in Hydra's grammar: what stands behind the equals sign.

    Args:
        value: JSON-like; the keys of mappings are names, as the grammar has no quotes for them.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{as_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_value, value)) + "]"
    if not isinstance(value, str):
        return repr(value)
    bare = _BARE.fullmatch(value) and value.lower() not in _WORDS and ":" not in value[-1:]
    return value if bare else "'" + _QUOTE.sub(_escaped, value) + "'"


def _escaped(found: re.Match[str]) -> str:
    """Double backslashes where Hydra reads them as a sign, and mark the quote that comes after them."""
    return found[2] * 2 if found[2] else found[1] * 2 + r"\'"


def typed(run: Run) -> dict[str, str]:
    """Return the overrides that a run's command has, by the node that each is about: ``optim.lr`` -> ``optim.lr=1``.

    A word that chooses a term (``term@objective.terms.kl=kl``) is about that term. Nothing where the command of a run
    cannot be read.
    """
    return {place: word for word in _words(run)[2:] if (place := _place(word))}


def _place(word: str) -> str:
    """Return the node that an override is about; nothing of a flag or its value."""
    key, equals, _ = word.lstrip(_SIGNS).partition("=")
    return key.rpartition("@")[2] if equals or word.startswith("~") else ""


def _words(run: Run) -> list[str]:
    try:
        return shlex.split(str(run.get("command", "")))
    except ValueError:
        return []


def overrides(run: Run) -> dict[str, str]:
    """Return a run's settings as keys and values of the command line.

    A strategy is named by its file (``mapping=depth``) where the run kept its choices, as older ones did not; there its
    class is all that is known. A setting that the request did not have is left out: no file and no word named it, so it
    is at its default, and the command line would refuse it.
    """
    groups, request = _groups(run), read_request(run)
    found: dict[str, str] = {}
    for key, value in run["settings"].items():
        place = key.removesuffix(STRATEGY)
        if place in groups and (key.endswith(STRATEGY) or key in _ASKED):
            name, choice = groups[place]
            found[name] = as_value(choice)
        elif not request or key.endswith(STRATEGY) or _has(request, key):
            found[key] = as_value(value)
    return found


def read_request(run: Run) -> Mapping[str, Any]:
    """Return the composed request that a run was asked for; empty where it is not there, or cannot be read."""
    file = Path(str(run.get("folder", ""))) / REQUEST
    try:
        request = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        log.warning("%s cannot be read (%s): its run is shown without what it says", file, error)
        return {}
    return request if isinstance(request, dict) else {}


def _has(node: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def _groups(run: Run) -> dict[str, tuple[str, str]]:
    """Return node -> the group that it was chosen from, as the command line writes it, and the file."""
    choices: Mapping[str, str] = run.get("choices", {})
    return {name.rpartition("@")[2]: (name, choice) for name, choice in choices.items()}


def of_strategy(run: Run, key: str) -> str:
    """Return the override that chooses the strategy of a setting that names its class.

    Args:
        run: whose setting it is.
        key: ends in `STRATEGY`.
    """
    place = key.removesuffix(STRATEGY)
    name, choice = _groups(run).get(place, (place, str(run["settings"][key]).rpartition(".")[2].lower()))
    return f"{name}={as_value(choice)}"


def written_out(run: Run) -> str | None:
    """Return a run's command with every setting that decided its result, for a shell.

    Returns:
        None where the run did not keep its choices, or a credential was taken out of its command.
    """
    words = _words(run)
    if len(words) < 2 or not run.get("choices") or any(HIDDEN in word for word in words):
        return None
    asked = typed(run)
    chosen = {name: as_value(run["choices"][name]) for name in _ASKED if name in run["choices"]}
    whole = chosen | {"seed": str(run["seed"])} | overrides(run)
    rest = [f"{key}={value}" for key, value in whole.items() if key.rpartition("@")[2] not in asked]
    return for_shell([*words, *rest])


def asked_again(run: Run, **changed: str | None) -> str:
    """Return a run's command with other values of some keys for a shell: a sweep where a key gets several.

    Args:
        run: whose command it is; of one that kept none, the keys alone are left.
        changed: key -> value; None leaves the key to the request's own default.
    """
    rest = [word for word in _words(run)[2:] if _place(word) not in changed]
    given = {key: value for key, value in changed.items() if value is not None}
    sweep = ["-m"] if any("," in value for value in given.values()) else []
    return for_shell(["pkt", "run", *sweep, *(f"{key}={value}" for key, value in given.items()), *rest])


def for_shell(words: Sequence[str]) -> str:
    """Return words as a line that a shell splits into the same words."""
    return shlex.join(words)
