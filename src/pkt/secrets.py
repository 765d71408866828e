"""Take credentials out of what is written: configs, command lines, manifests, cards, reports, logs.

A credential is known by where it stands (user and password of a URL, a parameter or a setting of a telling name), by
its form (tokens of the hub, of W&B's and other services), or by its value (that of an environment variable of a telling
name, which `${oc.env:HF_TOKEN}` puts into a config). Rows and answers are data, and are left as they are.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

HIDDEN = "<hidden>"
_SHORTEST, _WORDLIKE = 6, 8  # characters: shorter values, or plain words, occur in texts by chance

_TELLING = re.compile(
    r"(?:.*(?:password|passwd|passphrase|secret|credentials?|apikey)"
    r"|(?:^|.*[._-])(?:token|(?<=[._-])pass|pw|pwd|pat|auth|authorization|sig|signature"
    r"|(?:access|account|api|auth|encryption|private|secret|service|signing|storage|ssh|wandb)[._-]?key))",
    re.IGNORECASE,
)
_SPECIAL = re.compile(
    r".*(?:pad|eos|bos|unk|sep|cls|mask|special|stop|end|begin)_token", re.IGNORECASE
)  # of a tokenizer
_FORMS = re.compile(
    r"\b(?:hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{10,}|(?:sk|pk|rk)-(?=[\w-]*\d)[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}|wandb_v\d_\w{20,}"
    r"|npm_[A-Za-z0-9]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_IN_URL = re.compile(  # a password may hold what a URL has to quote; `host:8080/` is none
    r"(?P<scheme>\b[a-zA-Z][\w+.-]*://)(?:[^\s/?#'\"]*|[^\s/?#'\"@:]*:(?!\d+/)[^\s'\"@]*)@(?=[^\s/?#'\"])"
)
_NAMED = re.compile(
    r"(?P<name>[\w.-]+)(?P<is>=|%3D|:\s+)(?P<value>\"[^\"]*\"|'[^']*'|[^\s&;,'\"}\])]+)", re.IGNORECASE
)
_IN_QUERY = re.compile(r"(?P<name>[?&](?:key|code|pass)=)[^\s&#'\"]+", re.IGNORECASE)
_HEADER = re.compile(r"\b(?P<kind>Bearer|Basic)\s+(?=\S*\d)[\w.~+/=-]{8,}")
_SETTING = re.compile(r"[\w.@/-]+")
_LEARNT: set[str] = set()


@lru_cache(maxsize=4096)
def telling(name: str) -> bool:
    """Return whether the value of a setting, parameter or variable of this name is a credential.

    Args:
        name: such as ``HF_TOKEN``, ``password`` or ``store.api_key``.
    """
    return bool(_TELLING.fullmatch(name)) and not _SPECIAL.fullmatch(name)


def without(text: str) -> str:
    """Return text with `<hidden>` in place of every credential.

    Args:
        text: of any length; what is no credential stays as it is.
    """
    for value in _values():
        text = text.replace(value, HIDDEN)
    text = _IN_URL.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _IN_QUERY.sub(rf"\g<name>{HIDDEN}", text)
    text = _HEADER.sub(rf"\g<kind> {HIDDEN}", text)
    text = _FORMS.sub(HIDDEN, text)
    return _NAMED.sub(_hide_named, text)


def _hide_named(found: re.Match[str]) -> str:
    hidden = telling(found["name"]) and found["value"].strip("'\"") not in (
        "null",
        "None",
        "true",
        "false",
        "",
    )
    return f"{found['name']}{found['is']}{HIDDEN}" if hidden else found[0]


def hide(value: Any, name: str = "") -> Any:
    """Return plain data (dicts, lists, text, numbers) with its credentials hidden.

    Args:
        value: JSON-like.
        name: of the setting that has this value.
    """
    if isinstance(value, Mapping):
        return {
            without(key) if isinstance(key, str) else key: hide(item, name if telling(name) else str(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(hide(item, name) for item in value)
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and telling(name)
        and "token" not in name.lower()
    ):
        return HIDDEN  # a password of digits; tokens are counted
    if not isinstance(value, str) or not value:
        return value
    return HIDDEN if telling(name) else hide_word(value)


def hide_word(word: str) -> str:
    """Return a word of a command line without credentials: of a setting with a telling name nothing is left.

    Args:
        word: such as ``method.password=two words``.
    """
    key, equals, _ = word.partition("=")
    setting = key.lstrip("+~")
    return f"{key}={HIDDEN}" if equals and _SETTING.fullmatch(setting) and telling(setting) else without(word)


def learn(value: Any, name: str = "") -> None:
    """Remember the credentials of a request, which may turn up anywhere: in folders' names, messages and tables.

    Args:
        value: its settings, as plain data.
        name: of the setting that has this value.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            learn(item, name if telling(name) else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            learn(item, name)
    elif isinstance(value, str) and telling(name):
        _LEARNT.add(value)


def forget() -> None:
    """Forget the credentials of an earlier request."""
    _LEARNT.clear()


def _values() -> list[str]:
    """Return the values of environment variables and settings that are credentials, the longest first."""
    found = {value for name, value in os.environ.items() if telling(name) and name != "PWD"} | _LEARNT
    long = {value for value in found if len(value) >= (_WORDLIKE if value.isalpha() else _SHORTEST)}
    secret = {value for value in long if not os.path.exists(value)}  # noqa: PTH110  (a path says where one is kept)
    return sorted(secret | {quote(value, safe="") for value in secret}, key=len, reverse=True)


class Formatter(logging.Formatter):
    """Formats a line of a log without credentials."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return without(super().format(record))
