"""The config of a model that keeps some layers of another one.

config, kept layers -> candidates (lists cut, indices renumbered, counts and periods tried) -> model on the meta device
                    -> its layers are built like the kept ones? -> that config; if none fits: refused

No list of model types: what a config's lists and numbers mean is found out by building the model that they describe.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from pkt.errors import RequestError
from pkt.late import nn, torch
from pkt.models.kept import RECORD
from pkt.models.quiet import quiet_transformers
from pkt.models.structure import Structure, difference, numbering, outside, structures, without

Build: TypeAlias = "Callable[[Any], tuple[nn.Module, str]]"
"""Makes the model of a config, and says where its list of layers is."""

TRIES = 400  # candidates that are built before a cut is refused
_DEPTH = re.compile(r"(^|_)(layers?|blocks)$")
_COUNTS = re.compile(r"layer|dense|sparse|period|offset|interval|step|every|freq|pattern|shared")
_INDICES = re.compile(r"layer|idx|indices")
_OTHER = re.compile(r"token|label|^rope_|architectures|quantization")


def cut_config(config: Any, layers: Sequence[int], build: Build) -> Any:
    """Return the text config whose model has the layers `layers` (from 1) of the model of `config`, and no others.

    Args:
        config: of the whole model, which may be a multimodal one around the text model.
        layers: that stay.
        build: makes the whole model.

    Raises:
        RequestError: no value of its settings says so.
    """
    text = config.get_text_config()
    whole, stack = build(config)
    every, around = structures(list(whole.get_submodule(stack).children())), outside(whole, stack)
    counting = numbering(every)
    kinds = [without(layer, counting) for layer in every]
    first: str | None = None
    for values in itertools.islice(_candidates(text, layers, kinds), TRIES):
        try:
            candidate = made(text, values)
            model, place = build(_around(config, candidate))
        except Exception as error:  # whatever a model's own code says of a config that makes no sense
            differs: str | None = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            found = [
                without(layer, counting) for layer in structures(list(model.get_submodule(place).children()))
            ]
            wanted = [kinds[number - 1] for number in layers]
            differs = _differs(wanted, found) or difference(around, outside(model, place))
        if differs is None:
            return candidate
        first = first or differs
    raise RequestError(
        f"model.student.layers={list(layers)}: no {text.model_type} config was found that makes these layers and no "
        f"others ({first}). What its layers are depends on their numbers: keep the first ones, or others whose kinds "
        "follow each other as the config's own rule has it, or load a student instead (model.student.init=load)."
    )


def _around(config: Any, text: Any) -> Any:
    """Return a config with another text config."""
    own = config.get_text_config()
    if own is config:
        return text
    whole = copy.deepcopy(config)
    setattr(whole, next(name for name, value in vars(config).items() if value is own), text)
    return whole


def _differs(wanted: Sequence[Structure], found: Sequence[Structure]) -> str | None:
    """Say how the layers of a candidate differ from the kept ones; None where they do not."""
    if len(found) != len(wanted):
        return f"there are {len(found)} layers"
    told = (difference(one, other) for one, other in zip(wanted, found, strict=True))
    return next((f"in layer {number}, {what}" for number, what in enumerate(told, 1) if what), None)


def _candidates(config: Any, layers: Sequence[int], kinds: Sequence[Structure]) -> Iterator[dict[str, Any]]:
    """Yield the values of configs, the most natural ones first."""
    known, depth = config.to_dict(), len(kinds)
    known.pop(RECORD, None)  # of a teacher that was cut itself
    bases = [_cut(known, layers, depth, base) for base in (0, 1)]
    plain = bases[0]
    numbers = [
        key
        for key, value in known.items()
        if type(value) is int and 0 <= value <= depth and _COUNTS.search(key) and plain[key] == value
    ]
    lists = [key for key, value in known.items() if _INDICES.search(key) and _is_indices(value, depth)]
    choices = {key: _counts(known[key], layers, depth) for key in numbers}
    choices |= {key: _positions([kinds[number - 1] for number in layers]) for key in lists}
    choices |= {
        key: [[value[(n - 1) % len(value)] for n in layers]] for key, value in known.items() if _cycles(value)
    }
    yield plain
    yield bases[1]
    yield plain | {key: choices[key][0] for key in numbers}
    for size in (1, 2):
        for keys in itertools.combinations(choices, size):
            for values in itertools.product(*(choices[key] for key in keys)):
                yield plain | dict(zip(keys, values, strict=True))


def made(config: Any, values: dict[str, Any]) -> Any:
    """Make a config from plain values, as reading it from a file does."""
    made = type(config).from_dict(copy.deepcopy(values))
    made._attn_implementation = config._attn_implementation
    return made


def _cycles(value: Any) -> bool:
    """Return whether a list may be a pattern of kinds that is repeated over the layers."""
    return isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(item, str) for item in value)


def _counts(value: int, layers: Sequence[int], depth: int) -> list[int]:
    """Return what a number of layers may become: as many as are kept of the first or last ones, then any."""
    natural = [sum(n <= value for n in layers), sum(n > depth - value for n in layers), value]
    return list(dict.fromkeys([*natural, *range(len(layers) + 2)]))


def _positions(wanted: Sequence[Structure]) -> list[list[int]]:
    """Return the places of each kind of layer, from 0."""
    kinds = [wanted.index(one) for one in wanted]
    return [[place for place, kind in enumerate(kinds) if kind == one] for one in dict.fromkeys(kinds)]


def _cut(value: Any, layers: Sequence[int], depth: int, base: int, key: str = "") -> Any:
    """Cut what has one entry per layer, renumber lists of layers (counted from `base`), and set depths."""
    if _OTHER.search(key):
        return value
    if isinstance(value, dict):
        if value and all(str(name).isdigit() and int(name) < depth for name in value):  # by layer
            places = {number - 1: place for place, number in enumerate(layers)}
            return {type(n)(places[int(n)]): item for n, item in value.items() if int(n) in places}
        return {name: _cut(item, layers, depth, base, str(name)) for name, item in value.items()}
    if type(value) is int:
        return value * len(layers) // depth if value and value % depth == 0 and _DEPTH.search(key) else value
    if not isinstance(value, list | tuple | str):
        return value
    if _INDICES.search(key) and _is_indices(value, depth):
        own = 0 if 0 in value else 1 if depth in value else base
        return [place + own for place, number in enumerate(layers) if number - 1 + own in value]
    if _is_runs(value, depth):
        return [[[_unrolled(value)[number - 1] for number in layers], 1]]
    if len(value) != depth or (isinstance(value, str) and "pattern" not in key):
        return value
    chosen = [value[number - 1] for number in layers]
    return "".join(chosen) if isinstance(value, str) else chosen


def _is_indices(value: Any, depth: int) -> bool:
    numbers = isinstance(value, list) and all(type(item) is int and 0 <= item <= depth for item in value)
    return numbers and value == sorted(set(value))


def _is_runs(value: Any, depth: int) -> bool:
    """Return whether a list is one of [pattern, times] that describes every layer (GPT-Neo's attention)."""
    pairs = isinstance(value, list) and all(
        isinstance(run, list | tuple) and len(run) == 2 and isinstance(run[0], list) and type(run[1]) is int
        for run in value
    )
    return pairs and len(_unrolled(value)) == depth


def _unrolled(runs: Any) -> list[Any]:
    return [item for pattern, times in runs for item in pattern * times]


@torch.no_grad()
def built(config: Any, make: Callable[[Any], Any]) -> Any:
    """Return a model whose parameters are on the meta device."""
    with quiet_transformers(), torch.device("meta"):
        return make(config)
