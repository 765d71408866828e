"""What the layers of a model are made of: types of modules, shapes, and plain attributes.

Two layers with the same structure and the same weights compute the same. A config codes the kind of a layer in many
ways (a list, a period, the first k); the structure of the model that it builds says which kind came out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pkt.late import nn

Structure = dict[str, dict[str, Any]]
"""Of one layer: module path -> facts by name."""

_PLAIN = (bool, int, float, str, type(None))


def structures(layers: Sequence[nn.Module]) -> list[Structure]:
    """Describe each layer; lists with one entry per layer tell nothing of a single one and are left out."""
    return [{path: _facts(module, len(layers)) for path, module in layer.named_modules()} for layer in layers]


def numbering(described: Sequence[Structure]) -> set[tuple[str, str]]:
    """Return the attributes (module path, name) that only count the layers: equal steps from each to the next.

    A name that counts over all modules together does so in each: the one attention layer of a hybrid model has a number
    like the others.
    """
    places: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    names: dict[str, list[tuple[int, Any]]] = {}
    for index, layer in enumerate(described):
        for path, facts in layer.items():
            for name, value in facts.items():
                places.setdefault((path, name), []).append((index, value))
                names.setdefault(name, []).append((index, value))
    count = {name for name, found in names.items() if _counts_up(found)}
    return {(path, name) for (path, name), found in places.items() if name in count or _counts_up(found)}


def _counts_up(found: Sequence[tuple[int, Any]]) -> bool:
    if len(found) < 2 or any(type(value) is not int for _, value in found):
        return False
    (first, low), (last, high) = found[0], found[-1]
    return high > low and all(
        (value - low) * (last - first) == (high - low) * (index - first) for index, value in found
    )


def without(layer: Structure, left_out: set[tuple[str, str]]) -> Structure:
    """Return a description without some attributes."""
    return {
        path: {name: value for name, value in facts.items() if (path, name) not in left_out}
        for path, facts in layer.items()
    }


def outside(model: nn.Module, stack: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors outside its stack of layers."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.startswith(f"{stack}.")
    }


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Say the first thing in which two descriptions differ; None where they are equal."""
    for name in [*wanted, *found]:
        one, other = wanted.get(name, "nothing"), found.get(name, "nothing")
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            inner = difference(one, other)
            return f"{name}.{inner}" if name else inner
        return f"{name or 'the layer'} is {_shown(one)}, not {_shown(other)}"
    return None


def adopt(stale: nn.Module, fresh: nn.Module) -> None:
    """Copy numbers and flags of all modules from a model that was built anew into one whose layers were cut."""
    known = dict(fresh.named_modules())
    for path, module in stale.named_modules():
        for name, value in vars(known.get(path, module)).items():
            if isinstance(value, _PLAIN) and not name.startswith("_") and name != "training":
                setattr(module, name, value)


def _facts(module: nn.Module, depth: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": type(module).__name__}
    facts |= {
        name: list(value) if isinstance(value, tuple) else value  # a file has no tuples
        for name, value in vars(module).items()
        if _is_plain(value, depth) and not name.startswith("_") and name != "training"
    }
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return facts | {name: tuple(tensor.shape) for name, tensor in own}


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, list | tuple):
        return len(value) != depth and all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)


def _shown(value: Any) -> str:
    return str(value["type"]) if isinstance(value, Mapping) and "type" in value else str(value)
