"""What stays of the teacher in a student with ``init=prune``: importance, measured once, and the choice by it.

teacher, extract rows ──> importance of layers | heads | mlp | hidden     kept in the store, whatever the sizes
request's numbers     ──> the best of each ──> CutSpec                    what really stays makes the fingerprint
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pkt.attribution.importance import VERSION, Importance
from pkt.config import CheckpointSpec, CutConfig
from pkt.manifest import content_key
from pkt.mapping import top_layers
from pkt.models.kept import Counts, CutSpec, Kept, count, counts
from pkt.models.narrow import narrow_config, sizes
from pkt.models.surgery import check_kept
from pkt.remembered import recall, remember

Measured = Callable[[str], Importance]
"""What is measured (a key of `MEASURES`) -> its numbers."""


def resolved(spec: CheckpointSpec, teacher_config: Any, measured: Measured) -> CheckpointSpec:
    """Return a cut student's spec with all that stays of its teacher written out.

    Args:
        spec: of the student.
        teacher_config: of its teacher.
        measured: gives importance; asked for what is chosen by it, and for nothing else.

    Raises:
        RequestError: numbers that the teacher does not have, or layers or widths that cannot be cut.
    """
    config, cut = teacher_config.get_text_config(), spec.cut
    depth = int(config.num_hidden_layers)
    wanted = Counts()
    if any(value is not None for value in (cut.heads, cut.mlp, cut.hidden)):
        wanted = counts(cut, sizes(config))
    elif cut.layers is not None:  # the sizes of layers do not matter, and need not stand in the config
        wanted = Counts(layers=count("layers", cut.layers, depth))
    layers = _layers(spec, depth, wanted, measured)
    check_kept(layers, depth)
    kept = Kept(layers=tuple(layers), **_widths(wanted, layers, config, measured))
    return CutSpec(**{**vars(spec), "layers": list(layers)}, kept=kept)


def check_widths(cut: CutConfig, teacher_config: Any, roles: Mapping[str, Any] | None) -> None:
    """Refuse widths that an architecture cannot be cut to, whichever channels stay: a look before they are measured.

    Args:
        cut: what the request says.
        teacher_config: of the teacher.
        roles: its declared module roles.

    Raises:
        RequestError: see `narrow_config`.
    """
    if cut.heads is cut.mlp is cut.hidden is None:
        return
    config = teacher_config.get_text_config()
    wanted, depth = counts(cut, sizes(config)), int(config.num_hidden_layers)
    if wanted.groups is wanted.mlp is wanted.hidden is None:
        return
    trial = Kept(
        layers=tuple(range(1, depth + 1)),
        groups=None if wanted.groups is None else (tuple(range(wanted.groups)),) * depth,
        mlp=None if wanted.mlp is None else (tuple(range(wanted.mlp)),) * depth,
        hidden=None if wanted.hidden is None else tuple(range(wanted.hidden)),
    )
    narrow_config(teacher_config, trial, roles=roles)


def _layers(spec: CheckpointSpec, depth: int, wanted: Counts, measured: Measured) -> Sequence[int]:
    if wanted.layers is not None:
        return top_layers(cast(list[float], measured(spec.cut.by)), wanted.layers)
    if spec.cut.every is not None:
        return range(1, depth + 1, spec.cut.every)
    whole = range(1, depth + 1) if wanted != Counts() or spec.cut.layers is not None else ()
    return whole if spec.layers is None else spec.layers


def _widths(wanted: Counts, layers: Sequence[int], config: Any, measured: Measured) -> dict[str, Any]:
    """Return the heads and channels that stay."""
    found: dict[str, Any] = {}
    if wanted.groups is not None:
        queries = sizes(config).queries
        heads = cast(list[list[float]], measured("heads"))
        summed = [[sum(own[i : i + queries]) for i in range(0, len(own), queries)] for own in heads]
        found["groups"] = tuple(_best(summed[layer - 1], wanted.groups) for layer in layers)
    if wanted.mlp is not None:
        channels = cast(list[list[float]], measured("mlp"))
        found["mlp"] = tuple(_best(channels[layer - 1], wanted.mlp) for layer in layers)
    if wanted.hidden is not None:
        found["hidden"] = _best(cast(list[float], measured("hidden")), wanted.hidden)
    return found


def _best(scores: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the places, from 0, of the `count` largest; of equals, the first."""
    return tuple(number - 1 for number in top_layers(scores, count))


def importance(folder: Path, about: Mapping[str, Any], measure: Callable[[], Importance]) -> Importance:
    """Return importance that was measured before on the same rows and teacher, or measure it and keep it.

    Args:
        folder: where it is kept.
        about: what is measured, the teacher, the rows, and how they are computed.
        measure: does it.
    """
    file = folder / f"{content_key({**about, 'version': VERSION})}.json"
    if known := recall(file, "importance is measured again"):
        return cast(Importance, known["importance"])
    found = measure()
    remember(file, {**about, "importance": found})
    return found
