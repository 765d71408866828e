"""Save dataclasses to files: one JSON file, and beside it a safetensors file of the same name with the tensors.

    value -> save -> x.json (with names for tensors), x.safetensors -> load, by the fields' types -> value

A value is made of dataclasses, tensors, numbers, strings, None, tuples, lists, and dicts with text or integer keys. The
types of its class decide how it is read; the files name no code. torch is imported only where tensors are read, because
`pkt report` reads scores without it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from safetensors import SafetensorError

from pkt.errors import PktError

if typing.TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
APART: dict[str, Any] = {"apart": True}
"""Metadata of a field that is empty by default, and that its class keeps in files of its own."""


class MisfitError(Exception):
    """Data that is not of the type that its field has."""


def save(value: Any, path: Path) -> None:
    """Write a value; a tensor that occurs in several places is written once.

    Args:
        value: a dataclass as described above; its tensors may lie on any device.
        path: of the JSON file.

    Raises:
        TypeError: the value holds something else, such as a set or an object of a plain class.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}
    memory: set[int] = set()

    def name_of(tensor: Tensor, place: str) -> str:
        same = (tensor.data_ptr() or id(tensor), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if same not in names:
            names[same] = place
            own = tensor.detach().cpu().contiguous()
            whole = own.untyped_storage()
            # safetensors refuses tensors that share memory
            tensors[place] = own.clone() if whole.data_ptr() in memory or whole.nbytes() > own.nbytes else own
            memory.add(whole.data_ptr())
        return names[same]

    data = _plain(value, "", name_of)
    if tensors:
        from safetensors.torch import save_file

        save_file(tensors, path.with_suffix(".safetensors"))
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load(kind: type[T], path: Path) -> T:
    """Read what `save` wrote, and check every part against the type of its field.

    Raises:
        PktError: a file is missing, damaged, or of another kind.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        value: T = _typed(kind, data, "", _tensors(path.with_suffix(".safetensors")))
    except (OSError, ValueError, SafetensorError, MisfitError) as error:
        raise PktError(
            f"{path} holds no whole {kind.__name__} ({error}). It is damaged, or another version of pkt wrote it: "
            f"delete {path.parent} and run the request again."
        ) from error
    return value


def _tensors(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    if path.is_file():
        from safetensors.torch import load_file

        tensors = load_file(path)
    return tensors


def _is_in(field: dataclasses.Field[Any]) -> bool:
    """Whether a field is in the JSON file."""
    return not APART.items() <= dict(field.metadata).items()


def _is_tensor(kind: type[Any]) -> bool:
    return any((base.__module__, base.__name__) == ("torch", "Tensor") for base in kind.__mro__)


def _plain(value: Any, place: str, name_of: Callable[[Tensor, str], str]) -> Any:
    """Return a value as JSON has it, tensors as their names."""
    if _is_tensor(type(value)):
        return name_of(value, place)
    if dataclasses.is_dataclass(value):
        value = {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if _is_in(field)
        }
    if isinstance(value, Mapping) and all(type(key) in (str, int) for key in value):
        return {str(key): _plain(item, f"{place}/{key}", name_of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}/{i}", name_of) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{place}: a {type(value).__name__} cannot be saved")


def _typed(kind: Any, data: Any, place: str, tensors: Mapping[str, Tensor]) -> Any:
    """Return JSON data as a value of some type."""
    outer, inner = get_origin(kind), get_args(kind)
    if kind is Any:  # JSON as it is
        return data
    if outer in (Union, types.UnionType):
        return _one_of(inner, data, place, tensors)
    if inner == (str, Any) and isinstance(data, dict):  # the same, at once: records of answers are many
        return data
    if outer is dict and isinstance(data, dict):
        return {inner[0](k): _typed(inner[1], v, f"{place}/{k}", tensors) for k, v in data.items()}
    if outer in (list, tuple) and isinstance(data, list):
        each = inner if outer is tuple and inner[1:] != (...,) else (inner[0],) * len(data)
        if len(each) == len(data):
            parts = enumerate(zip(each, data, strict=True))
            return outer(_typed(own, item, f"{place}/{i}", tensors) for i, (own, item) in parts)
    if dataclasses.is_dataclass(kind) and isinstance(data, dict):
        return _dataclass(kind, data, place, tensors)
    if isinstance(kind, type) and _is_tensor(kind) and isinstance(data, str) and data in tensors:
        return tensors[data]
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is kind:
        return data
    raise MisfitError(
        f"{place or 'it'} should be of type {getattr(kind, '__name__', kind)}, not {str(data)[:60]!r}"
    )


def _one_of(kinds: tuple[Any, ...], data: Any, place: str, tensors: Mapping[str, Tensor]) -> Any:
    """Return data as the first type that it fits; the data's own type is tried first, so that 3 stays an int."""
    refusal = MisfitError(place)
    for kind in sorted(kinds, key=lambda kind: kind is not type(data)):
        try:
            return _typed(kind, data, place, tensors)
        except MisfitError as error:
            refusal = error
    raise refusal


def _dataclass(kind: Any, data: Mapping[str, Any], place: str, tensors: Mapping[str, Tensor]) -> Any:
    hints, names = typing.get_type_hints(kind), {f.name for f in dataclasses.fields(kind) if _is_in(f)}
    newer = {
        field.name
        for field in dataclasses.fields(kind)
        if _is_in(field) and field.default_factory is not dataclasses.MISSING
    }
    if names - newer - data.keys() or data.keys() - names:
        wrong = ", ".join(sorted(names ^ data.keys()))
        raise MisfitError(
            f"{place or 'it'} should have the fields of {kind.__name__}; they differ in: {wrong}"
        )
    held = names & data.keys()  # a field that is empty by default may be newer than the file
    return kind(**{name: _typed(hints[name], data[name], f"{place}/{name}", tensors) for name in held})
