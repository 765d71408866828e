"""Find what else is wrong in a request whose config could not be composed: Hydra stops at the first fault.

words -> composed without those at fault, again and again -> a message for each of them
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from pkt.explain import CONFIG_ERRORS, explain
from pkt.searchpath import builtin_conf_dir

_SWEEP = ("-m", "--multirun")


def all_faults(verb: str, words: Sequence[str], first: str) -> list[str]:
    """Return a message for each word that does not fit, `first` before all.

    A word is at fault if the message names its key, and goes when the word does.

    Args:
        verb: one of `verbs.COMPOSED`.
        words: as `words.hydra_words` returns them; of a sweep its first job is looked at. With other flags there is
            `first` alone.
        first: what Hydra said of all of them, explained.
    """
    found, rest = [first], [word for word in words if word not in _SWEEP]
    if any(word.startswith("-") for word in rest):
        return found
    if len(rest) < len(words):
        rest = [*map(_of_first_job, rest)]
    while len(rest) > 1:
        named = {key for word in rest if (key := _key(word)) and key in found[-1]}
        for key in sorted(named, key=len, reverse=True):  # `method.rank` before `method`
            without = [word for word in rest if _key(word) != key]
            if (said := _said(verb, without)) != found[-1]:
                break
        else:
            return found
        if said is None:
            return found
        found.append(said)
        rest = without
    return found


def _of_first_job(word: str) -> str:
    """Return a word with the first of its values, where it has several; one that cannot be read is at fault."""
    with suppress(*CONFIG_ERRORS):
        (override,) = OverridesParser.create().parse_overrides([word])
        if override.is_sweep_override():
            return f"{word.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"
    return word


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _said(verb: str, words: list[str]) -> str | None:
    """Return what is wrong with words; None where they compose."""
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        try:
            compose(verb, words)
        except (*CONFIG_ERRORS, RecursionError) as error:
            return explain(error)
    return None
