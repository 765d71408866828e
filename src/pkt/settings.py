"""What a setting is: the values that it may have, and the stages whose results it decides.

    dataclass fields ── setting(...) ──> deciding(node, stage, ...) ──> the settings in a stage's key
                                    └──> check(key, value, ...): refuse values that make no sense

The one place that knows which settings enter a key. A field without `setting` decides the first stage that reads its
node: too much is computed anew rather than too little. Keys are chained, so what decides `extract` also changes the
keys of the stages that read its result.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pkt.errors import RequestError, nearest

_METADATA = "pkt"
UNSET: Any = object()

Rule = Callable[[Any, Any], bool]
"""(the dataclass that has the field, the request's `Choice` of strategies) -> whether the field decides."""


def always(_own: Any, _choice: Any) -> bool:
    """Let a setting decide whatever the others say."""
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of a field.

    Attributes:
        decides: stage -> when the field enters its key; None: the stage where its node is first read.
        when: of a field whose stage is that of its node: when it enters the key.
        since: the value that the field had when it was introduced, frozen: with it the field stays out of keys, so
            that a new setting leaves older keys alone. A later change of the default does not change it.
        choices: allowed values; empty: not a choice.
        at_least, above, at_most, below: bounds of a number; None values are left to their meaning.
    """

    decides: Mapping[str, Rule] | None = None
    when: Rule = always
    since: Any = UNSET
    choices: tuple[Any, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def broken(self, value: Any) -> str | None:
        """Return the bound that a number is beyond, such as ``from 1``; None where it is within all."""
        bounds = {
            "from": (self.at_least, operator.ge),
            "above": (self.above, operator.gt),
            "up to": (self.at_most, operator.le),
            "below": (self.below, operator.lt),
        }
        for word, (bound, fits) in bounds.items():
            if bound is None or value is None:
                continue
            if not (math.isfinite(value) and fits(value, bound)):
                return f"{word} {bound:g}"
        return None


NOTHING = Setting()


def setting(
    default: Any = dataclasses.MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    decides: str | Mapping[str, Rule] | None = None,
    when: Rule = always,
    since: Any = UNSET,
    choices: Sequence[Any] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a dataclass field that says what it decides.

    Args:
        default: as in `dataclasses.field`.
        factory: its `default_factory`.
        decides: a stage (``extract``, ``align``, ``transfer``, ``eval``, ``analyze``), or stages with rules; None: the
            stage where its node is first read. See `undecisive` for a setting that changes no result.
        when: see `Setting`.
        since: see `Setting`.
        choices: allowed values.
        at_least: lowest allowed number.
        above: bound that a number has to exceed.
        at_most: highest allowed number.
        below: bound that a number may not reach.
    """
    stages = {decides: when} if isinstance(decides, str) else decides
    known = Setting(
        decides=stages,
        when=when,
        since=since,
        choices=tuple(choices),
        at_least=at_least,
        above=above,
        at_most=at_most,
        below=below,
    )
    given: dict[str, Any] = {"default": default} if factory is None else {"default_factory": factory}
    return dataclasses.field(metadata={_METADATA: known}, **given)


def undecisive(default: Any = dataclasses.MISSING, **known: Any) -> Any:
    """Return a field that is in no key: it changes no result, or its effect is in the key by another way.

    Args:
        default: as in `setting`.
        known: other arguments of `setting`.
    """
    return setting(default, decides={}, **known)


def known(field: dataclasses.Field[Any]) -> Setting:
    """Return what is known of a field."""
    found: Setting = field.metadata.get(_METADATA, NOTHING)
    return found


def check(key: str, value: Any, about: Setting) -> None:
    """Refuse a value that is none of a setting's choices, or out of its bounds; null is left to its meaning.

    Args:
        key: what the command line calls it, for the message.
        value: of the right type; of a list, each item is one of the choices.
        about: what is known of the setting.

    Raises:
        RequestError: with what was got and what is allowed.
    """
    for item in value if isinstance(value, list | tuple) else (value,):
        if about.choices and item is not None and item not in about.choices:
            allowed = [str(choice) for choice in about.choices]
            raise RequestError(
                f"{key}: got '{item}'; allowed: {', '.join(allowed)}{nearest(str(item), allowed)}"
            )
    if bound := about.broken(value):
        raise RequestError(f"{key}: a value {bound} is expected, got {value}")


class Bounded:
    """A dataclass that refuses numbers beyond the bounds of their settings.

    Raises:
        ValueError: such a number.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if bound := known(field).broken(value):
                raise ValueError(f"{field.name} is a number {bound}, got {value}")


def deciding(node: Any, stage: str, choice: Any, *, path: str, first: str) -> dict[str, Any]:
    """Return the settings of a node that decide a stage's result, by the key that the command line has for them.

    Args:
        node: a dataclass instance; nested ones, also in lists and mappings, are gone through.
        stage: whose key it is.
        choice: the strategies of the request, for rules that compare.
        path: the node's own key, such as ``method.update``.
        first: the stage that a field without a stage of its own decides.

    Returns:
        JSON-like values.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(node):
        value, about = getattr(node, field.name), known(field)
        rules = {first: about.when} if about.decides is None else about.decides
        at = f"{path}.{field.name}" if path else field.name
        inherited = next(iter(rules), first) if about.decides is not None else first
        if _is_nested(value):
            live = about.decides is None or bool(rules)
            if live and about.when(node, choice):
                found |= _nested(value, stage, choice, at, inherited)
        elif stage in rules and rules[stage](node, choice) and not _is_since(value, about.since):
            found[at] = plain(value)
    return found


def _is_nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_nested(item) for item in value.values())
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _nested(value: Any, stage: str, choice: Any, path: str, first: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return deciding(value, stage, choice, path=path, first=first)
    found: dict[str, Any] = {}
    for name, item in value.items():  # which class it is, a mapping's type does not say
        if stage == first:
            found[f"{path}.{name}._target_"] = target_of(type(item))
        found |= _nested(item, stage, choice, f"{path}.{name}", first)
    return found


def target_of(cls: type[Any]) -> str:
    """Return what a key calls a strategy's class: by its own name if it is pkt's, wherever in pkt it lies."""
    return cls.__qualname__ if cls.__module__.startswith("pkt.") else f"{cls.__module__}.{cls.__qualname__}"


def _is_since(value: Any, since: Any) -> bool:
    return since is not UNSET and type(value) is type(since) and bool(value == since)


def plain(value: Any) -> Any:
    """Return a setting's value as JSON has it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
