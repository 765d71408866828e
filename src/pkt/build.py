"""Build a strategy from its config node: `_target_: pkt.module.Class` plus the class's fields, strictly.

    node -> class (prefix `pkt.`, a dataclass) -> every value against its field's type -> object

Hydra's `instantiate` takes `rank: abc` in silence; here a wrong type, an unknown key and a foreign target are
refused with what is allowed and the nearest name.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, overload

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pkt.errors import PktError, RequestError, nearest

PREFIX = "pkt."
_TARGET = "_target_"
_LISTS = (list, tuple, Sequence, set, frozenset)
T = TypeVar("T")


@overload
def build(node: DictConfig) -> Any: ...
@overload
def build(node: DictConfig, kind: type[T]) -> T: ...
def build(node: DictConfig, kind: type[Any] | None = None) -> Any:
    """Return the object that a config node describes.

    Args:
        node: a mapping with `_target_`, the dotted name of a dataclass in pkt, and values for its fields.
        kind: the protocol (or class) that the object is used as; types the result for mypy. A protocol marked
            `@runtime_checkable` is also checked.

    Raises:
        RequestError: foreign, unknown or unsuitable target; unknown, missing or ill-typed field.
        PktError: the strategy needs a package that is not installed.
    """
    path = _path_of(node)
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        raise RequestError(f"{path} is not set: choose one of its options")
    given = typing.cast(dict[Any, Any], OmegaConf.to_container(node, resolve=True))
    target = given.pop(_TARGET, None)
    cls = _resolve(path, target)
    built = _construct(path, cls, given)
    runtime = getattr(kind, "_is_runtime_protocol", False) or not getattr(kind, "_is_protocol", False)
    if kind is not None and runtime and not isinstance(built, kind):
        raise RequestError(f"{path}: {target} is no {kind.__name__}; choose an option of this config group")
    return built


def _path_of(node: Any) -> str:
    return (node._get_full_key(None) if isinstance(node, DictConfig) else "") or "the node"


def _resolve(path: str, target: object) -> type[Any]:
    """Return the dataclass that `_target_` names, if it is one of pkt's."""
    if (
        not isinstance(target, str)
        or not target.startswith(PREFIX)
        or not target.replace(".", "_").isidentifier()
    ):
        raise RequestError(
            f"{path}.{_TARGET}: a dataclass of pkt is expected ('{PREFIX}<module>.<Class>'), got {target!r}"
        )
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise RequestError(f"{path}.{_TARGET}: pkt has no module '{module_name}'") from error
        raise PktError(
            f"{path}: {target} needs the package '{error.name}': pip install {error.name}"
        ) from error
    found = getattr(module, name, None)
    if not (
        isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__.startswith(PREFIX)
    ):
        own = [
            key
            for key, value in vars(module).items()
            if dataclasses.is_dataclass(value) and isinstance(value, type)
        ]
        own = sorted(
            key for key in own if not key.startswith("_") and vars(module)[key].__module__.startswith(PREFIX)
        )
        allowed = ", ".join(own) or "none"
        raise RequestError(
            f"{path}.{_TARGET}: no strategy '{name}' in {module_name}; it has: {allowed}{nearest(name, own)}"
        )
    return found


def _construct(path: str, cls: type[Any], given: dict[Any, Any]) -> Any:
    """Return `cls(**given)` after checking names, types and presence."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in given:
        if key not in fields:
            allowed = ", ".join(fields) or "nothing"
            raise RequestError(
                f"unknown key '{path}.{key}'; allowed here: {allowed}{nearest(str(key), fields)}"
            )
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if given.get(name, None if required else 0) == MISSING or (required and name not in given):
            raise RequestError(f"{path}.{name} is not set: add {path}.{name}=... ({_shown(hints[name])})")
    values = {name: _value(f"{path}.{name}", hints[name], value) for name, value in given.items()}
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:  # a dataclass checks ranges in __post_init__
        raise RequestError(f"{path}: {error}") from error


def _value(path: str, hint: Any, value: Any) -> Any:
    """Return `value` as the field's type, or refuse it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(path, hint, arguments, value)
    if isinstance(value, dict) and _TARGET in value:
        return build(_placed(path, value))
    if origin is Literal:
        if value not in arguments:
            listed = ", ".join(str(item) for item in arguments)
            raise RequestError(
                f"{path}: got {value!r}; allowed: {listed}{nearest(str(value), map(str, arguments))}"
            )
        return value
    if origin in _LISTS or hint in (list, tuple):
        return _sequence(path, hint, value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        inner = arguments[1] if len(arguments) == 2 else Any
        return {key: _value(f"{path}.{key}", inner, item) for key, item in value.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _construct(path, hint, value)
    return _scalar(path, hint, value)


def _union(path: str, hint: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in arguments:
        return None
    refused: RequestError | None = None
    choices = [argument for argument in arguments if argument is not type(None)]
    # an exact type first, so that 3 stays an int where int | float is allowed
    for choice in sorted(choices, key=lambda choice: type(value) is not choice):
        try:
            return _value(path, choice, value)
        except RequestError as error:
            refused = error
    if len(choices) == 1 and refused is not None:
        raise refused
    raise RequestError(f"{path}: {_shown(hint)} is expected, got {value!r}")


def _sequence(path: str, hint: Any, value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise RequestError(f"{path}: {_shown(hint)} is expected, got {value!r}")
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    fixed = origin is tuple and arguments and arguments[-1] is not Ellipsis
    if fixed and len(arguments) != len(value):
        raise RequestError(f"{path}: {len(arguments)} values are expected, got {len(value)}: {value!r}")
    each = arguments if fixed else [arguments[0] if arguments else Any] * len(value)
    items = [
        _value(f"{path}[{index}]", item, entry)
        for index, (item, entry) in enumerate(zip(each, value, strict=True))
    ]
    return items if origin is list else origin(items) if origin in (set, frozenset) else tuple(items)


def _scalar(path: str, hint: Any, value: Any) -> Any:
    """Return a number, string, flag, path or enum member, converted by OmegaConf's rules."""
    if hint is Any or (value is None and hint is type(None)):
        return value
    if isinstance(value, list) and hint in (int, float, bool, str):
        values = ",".join(map(str, value)) or "..."
        raise RequestError(
            f"{path}: one value is expected ({_shown(hint)}), got the list {value}; to try several, sweep: "
            f"`pkt run -m {path}={values}`"
        )
    if isinstance(hint, type) and isinstance(value, bool) and hint in (int, float, str):
        raise RequestError(f"{path}: {_shown(hint)} is expected, got {value!r}")
    schema = dataclasses.make_dataclass("Field", [("value", hint)])
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), {"value": value})
        return merged.value
    except OmegaConfBaseException as error:
        extra = nearest(str(value), [member.name for member in hint]) if _is_enum(hint) else ""
        raise RequestError(f"{path}: {_shown(hint)} is expected, got {value!r}{extra}") from error


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def _shown(hint: Any) -> str:
    """Return a type as a user would name it."""
    if _is_enum(hint):
        return "one of " + ", ".join(member.name for member in hint)
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    if hint in names:
        return names[hint]
    return str(getattr(hint, "__name__", hint)) if not get_args(hint) else str(hint).replace("typing.", "")


def _placed(path: str, value: dict[str, Any]) -> DictConfig:
    """Return a nested node that knows its place, for messages."""
    root: Any = value
    for name in reversed(path.replace("[", ".").replace("]", "").split(".")):
        root = {name: root}
    node = OmegaConf.select(OmegaConf.create(root), path.replace("[", ".").replace("]", ""))
    assert isinstance(node, (DictConfig, ListConfig))
    return typing.cast(DictConfig, node)
