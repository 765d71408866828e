"""What arms are called: the method, and the overrides in which an arm differs from most arms of that method.

settings that differ ──> a word of the command that brought several of them along (`objective=joint`)
                     └─> else each one as an override (`optim.lr=0.1`), or that the arm is without it
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pkt.reporting.overrides import STRATEGY, as_value, of_strategy, typed

_DIGITS = 8  # of a digest in a label
Run = Mapping[str, Any]


def labels(first: Sequence[Run], made: Sequence[Mapping[str, Any]], taken: Collection[str]) -> list[str]:
    """Return a label per arm; more is said where less would leave two alike, and a number where nothing else helps.

    Args:
        first: a run of each arm.
        made: what made each arm's students.
        taken: names that no arm may have.
    """
    found = [_label(run, first) for run in first]
    shared = _shared(found)
    found = [
        _label(run, first, whole=True) if label in shared else label
        for label, run in zip(found, first, strict=True)
    ]
    shared = _shared(found)
    found = [
        label + _digests(place, first, made) if label in shared else label
        for place, label in enumerate(found)
    ]
    names = list(taken)
    for place, label in enumerate(found):
        number = 1 + sum(other == label for other in (*taken, *found[:place]))
        names.append(label if label not in names else f"{label} #{number}")
    return names[len(taken) :]


def _shared(names: Sequence[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _digests(place: int, first: Sequence[Run], made: Sequence[Mapping[str, Any]]) -> str:
    """Return what differs beside the settings: rows, models, code."""
    method, own = first[place]["method"], made[place]
    siblings = [each for run, each in zip(first, made, strict=True) if run["method"] == method]
    keys = sorted({key for each in siblings for key in each} - set(first[place]["settings"]))
    shown = [key for key in keys if any(each.get(key) != own.get(key) for each in siblings)]
    return f" ({', '.join(f'{key} {short(own.get(key))}' for key in shown)})" if shown else ""


def short(value: Any) -> str:
    """Return a value as labels show it: the first digits of a digest."""
    text = value if isinstance(value, str) else json.dumps(value)
    digest = len(text) >= 2 * _DIGITS and set(text.partition("/")[0]) <= set("0123456789abcdef")
    return text[:_DIGITS] if digest else text


def _label(run: Run, runs: Sequence[Run], *, whole: bool = False) -> str:
    """Return the method's name and the overrides in which this arm differs from most arms of that method."""
    siblings = [other for other in runs if other["method"] == run["method"]]
    # each setting once: seeds of one arm do not outvote other arms
    siblings = list({json.dumps(each["settings"], sort_keys=True): each for each in siblings}.values())
    keys = sorted({key for each in siblings for key in each["settings"]})
    differ = [key for key in keys if _tells(key, run, siblings)]
    words: dict[str, str] = {}
    if not whole:
        words = _brought(run, siblings, differ)
        differ = _leading(run, siblings, [key for key in differ if key not in words], alone=not words)
    told = sorted({*words.values(), *(_told(run, key) for key in differ)})
    return str(run["method"]) + (f" ({', '.join(told)})" if told else "")


def _tells(key: str, run: Run, siblings: Sequence[Run]) -> bool:
    """Whether an arm's value of a setting differs from the one that more than half of the arms share."""
    values = [json.dumps(other["settings"].get(key)) for other in siblings]
    return 2 * values.count(json.dumps(run["settings"].get(key))) <= len(values)


def _brought(run: Run, siblings: Sequence[Run], differ: Sequence[str]) -> dict[str, str]:
    """Return the settings that a word of the command brought along, which most arms were not given, with that word."""
    own, others = typed(run), [typed(other) for other in siblings]
    said = {
        place: word
        for place, word in own.items()
        if 2 * sum(other.get(place) == word for other in others) <= len(others)
    }
    found = {}
    for key in differ:
        above = [place for place in said if key.startswith(f"{place}.")]
        if above and key not in own:
            found[key] = said[max(above, key=len)]
    return found


def _leading(run: Run, siblings: Sequence[Run], differ: Sequence[str], *, alone: bool) -> list[str]:
    """Return the settings that say what the others follow from.

    Args:
        run: of the arm.
        siblings: of the arms of its method.
        differ: the settings in which it differs.
        alone: whether nothing else tells the arm from others.
    """
    # where a strategy was exchanged, its name is enough: its own settings come with it
    swapped = tuple(key.removesuffix(STRATEGY) + "." for key in differ if key.endswith(STRATEGY))
    found = [key for key in differ if key.endswith(STRATEGY) or not key.startswith(swapped)]
    # settings that are gone, or there, because of another choice say less than that choice
    found = [key for key in found if run["settings"].get(key) is not None] or (found if alone else [])
    usual = [key for key in found if 2 * sum(key in other["settings"] for other in siblings) > len(siblings)]
    return usual or (found if alone else [])


def _told(run: Run, key: str) -> str:
    if key not in run["settings"]:
        return f"without {key.removesuffix(STRATEGY)}"
    return of_strategy(run, key) if key.endswith(STRATEGY) else f"{key}={as_value(run['settings'][key])}"
