"""Build a strategy from its config node: `_target_: pkt.module.Class` and values for the class's fields.

    node -> class (a dataclass of pkt or of an admitted plugin) -> values checked against the fields' types -> object

Hydra's `instantiate` accepts `rank: abc` without a word. Here a wrong type, an unknown key and a foreign target are
refused, and the message names what is allowed and the nearest name.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, overload

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pkt import plugins
from pkt.config import OptimConfig
from pkt.errors import RequestError, nearest
from pkt.rates import learning_rate, update_kind
from pkt.settings import check, known, not_allowed

_TARGET = "_target_"
_LISTS = (list, tuple, Sequence)
T = TypeVar("T")


@overload
def build(node: DictConfig) -> Any: ...
@overload
def build(node: DictConfig, kind: type[T]) -> T: ...
def build(node: DictConfig, kind: type[Any] | None = None) -> Any:
    """Return the object that a config node describes.

    Args:
        node: a mapping with `_target_`, the dotted name of a dataclass in pkt or a plugin, and values for its fields.
        kind: the protocol or class that the object is used as, for mypy; a class or a protocol that is marked
            `@runtime_checkable` is also checked.

    Raises:
        RequestError: a target that is foreign, unknown or unsuitable; a field that is unknown, missing or ill-typed.
        PktError: the strategy needs a package that is not installed.
    """
    path = (node._get_full_key(None) if isinstance(node, DictConfig) else "") or "the node"
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        raise RequestError(f"{path} is not set: choose one of its options")
    given = typing.cast(dict[Any, Any], OmegaConf.to_container(node, resolve=True))
    target = given.get(_TARGET)
    built = _built(path, given)
    runtime = getattr(kind, "_is_runtime_protocol", False) or not getattr(kind, "_is_protocol", False)
    if kind is not None and runtime and not isinstance(built, kind):
        raise RequestError(f"{path}: {target} is no {kind.__name__}; choose an option of this config group")
    return built


def settle_by_method(optim: OptimConfig, method: Mapping[str, Any]) -> None:
    """Put the method's own values in place where the request leaves them open; nothing reads the lists after.

    Args:
        optim: of the request.
        method: the node of the request's config.
    """
    name = str(method["name"])
    if optim.lr is None:
        optim.lr = learning_rate(optim, name, update_kind(method))
    if optim.epochs is None:
        optim.epochs = optim.epochs_by_method.get(name, optim.epochs_by_method.get("default"))
    optim.lr_by_method, optim.lr_by_update, optim.epochs_by_method = {}, {}, {}


def _built(path: str, given: Mapping[Any, Any]) -> Any:
    """Return the object of a plain mapping with `_target_`."""
    cls = _resolve(f"{path}.{_TARGET}", given.get(_TARGET))
    return _construct(path, cls, {key: value for key, value in given.items() if key != _TARGET})


def _resolve(path: str, target: object) -> type[Any]:
    """Return the dataclass that `_target_` names, if it is pkt's or a plugin's."""
    named = isinstance(target, str) and "." in target and target.replace(".", "_").isidentifier()
    if not named or not plugins.admits(str(target)):
        foreign = f"; to admit '{str(target).partition('.')[0]}': {plugins.HOW_TO_ADMIT}" if named else ""
        raise RequestError(
            f"{path}: a dataclass of pkt is expected ('pkt.<module>.<Class>') or one of a plugin, "
            f"got {target!r}{foreign}"
        )
    module_name, _, name = str(target).rpartition(".")
    module = vars(plugins.load(module_name, path))
    if not _is_strategy(module.get(name)):
        own = sorted(key for key, value in module.items() if _is_strategy(value) and not key.startswith("_"))
        raise RequestError(
            f"{path}: no strategy '{name}' in {module_name}; it has: {', '.join(own) or 'none'}{nearest(name, own)}"
        )
    return typing.cast(type[Any], module[name])


def _is_strategy(value: object) -> bool:
    """Return whether a value is a dataclass of pkt or of an admitted plugin."""
    return isinstance(value, type) and dataclasses.is_dataclass(value) and plugins.admits(value.__module__)


def _construct(path: str, cls: type[Any], given: dict[Any, Any]) -> Any:
    """Return `cls(**given)` after checking names, types and presence."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:  # imported under TYPE_CHECKING only
        raise RequestError(
            f"{path}: a type of {cls.__qualname__} cannot be read when it runs: {error}"
        ) from error
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in given:
        if key not in fields:
            allowed = ", ".join(fields) or "nothing"
            raise RequestError(
                f"unknown key '{path}.{key}'; allowed here: {allowed}{nearest(str(key), fields)}"
            )
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if given.get(name, MISSING if required else None) == MISSING:
            raise RequestError(f"{path}.{name} is not set: add {path}.{name}=... ({_shown(hints[name])})")
    values = {name: _value(f"{path}.{name}", hints[name], value) for name, value in given.items()}
    for name, value in values.items():
        check(f"{path}.{name}", value, known(fields[name]))
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
        return _built(path, value)
    if origin is Literal:
        if value not in arguments:
            raise not_allowed(path, value, arguments)
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
    return items if origin is list else tuple(items)


def _scalar(path: str, hint: Any, value: Any) -> Any:
    """Return a number, string, flag or path, converted by OmegaConf's rules."""
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
        return OmegaConf.merge(OmegaConf.structured(schema), {"value": value}).value
    except OmegaConfBaseException as error:
        raise RequestError(f"{path}: {_shown(hint)} is expected, got {value!r}") from error


def _shown(hint: Any) -> str:
    """Return a type as a user would name it."""
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    if hint in names:
        return names[hint]
    return str(getattr(hint, "__name__", hint)) if not get_args(hint) else str(hint).replace("typing.", "")
