"""How the ingredients of two results of a stage differ, in words.

a result that is missing, and the others of its kind -> the nearest -> `optim.lr 0.001 -> 0.002`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pkt.secrets import hide

SHOWN = 3  # differences that a reason names
# what a stage took tells its own reason; that another model is scored is no news
_TAKEN = ("inputs",)
_OWN_REASON = {"eval": ("inputs", "models")}
_ABSENT = "(not read)"
_TOLD = {
    "by": "the class of the method",
    "version": "the version of the stage",
    "encoding": "the version of tokenisation",
    "models": "the {}",
    "rows": "the {} rows",
    "processes": "the number of processes",
    "embeddings": "how embeddings train",
    "keeps": "what is kept of the teacher ({})",
    "tasks": "task {}",
    "prompts": "how prompts of {} are asked",
    "chat": "the rules of chat templates",
    "ends": "what ends an answer",
    "decoding": "what the model's generation settings change ({})",
    "code": "the code of {}",
}


def reason(stage: str, ingredients: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> str | None:
    """Say why a result is not there: how its ingredients differ from those of the nearest result of its kind.

    Args:
        stage: folder in the store.
        ingredients: of what is missing.
        others: of the results of its stage that are there.

    Returns:
        Such as ``optim.lr 0.001 -> 0.002``; None where there is nothing to compare with.
    """
    own = _leaves(hide(ingredients))  # as manifests have them
    differing = [
        _differing(_leaves(other), own) for other in others if other.get("stage") == ingredients["stage"]
    ]
    nearest = min(filter(None, differing), key=len, default=[])
    told = [
        _told(*difference) for difference in nearest if difference[0] not in _OWN_REASON.get(stage, _TAKEN)
    ]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return "; ".join(told[:SHOWN]) + more or None


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say how the ingredients of two results of one stage differ, such as ``optim.lr 0.001 -> 0.002``."""
    return [_told(*found) for found in _differing(_leaves(before), _leaves(now))]


def _leaves(ingredients: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Return ingredients by (kind, name)."""
    return {
        (kind, name): value
        for kind, own in ingredients.items()
        for name, value in (own.items() if isinstance(own, Mapping) else [("", own)])
    }


def _differing(
    before: Mapping[tuple[str, str], Any], now: Mapping[tuple[str, str], Any]
) -> list[tuple[str, str, Any, Any]]:
    """Return kind, name, value before and value now of what differs."""
    both = dict.fromkeys([*now, *before])
    changes = [(*at, before.get(at, _ABSENT), now.get(at, _ABSENT)) for at in both]
    return [change for change in changes if change[2] != change[3]]


def _told(kind: str, name: str, before: Any, now: Any) -> str:
    if kind == "settings":
        return f"{name} {before} -> {now}"
    return f"{_TOLD.get(kind, kind).format(name)} changed"
