"""Settings: which values a config field may have, and which stages' results it decides.

    dataclass fields ── setting(...) ──> deciding(node, stage, ...) ──> the settings in a stage's key
                                    └──> check(key, value, ...): refuse values that make no sense

This is the one place that knows which settings enter a key. A field without `setting` decides the first stage that
reads its node, so that in doubt too much is recomputed rather than too little. Keys are chained: a setting that decides
`extract` also changes the keys of all stages that read its result.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pkt.errors import RequestError, nearest

_METADATA = "pkt"
UNSET: Any = object()
# of a whole number whose setting names no bound: beyond it libraries overflow, each in its own way
_MOST = 2**31 - 1

MOST_SEED = 2**63 - 1  # torch takes no larger seed

Rule = Callable[[Any, Any], bool]
"""(the dataclass that has the field, the request's `Choice` of strategies) -> whether the field decides."""


def always(_own: Any, _choice: Any) -> bool:
    """Let a setting decide whatever the other settings are."""
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The values that a field may have, and the keys that it enters.

    Attributes:
        decides: stage -> when the field enters the stage's key; None: it enters that of the stage which first reads
            the field's node.
        when: if `decides` is None, when the field enters that key.
        since: the default at the time when the field was introduced, which never changes. A field with this value
            stays out of keys, so that a new setting leaves older keys as they are.
        choices: allowed values; empty: any.
        at_least, above, at_most, below: bounds of a number. A value of None is not checked. A number is finite, and a
            whole one has 31 bits, where no bound says otherwise.
        acts: whether the field does something also in requests of which it decides no result.
    """

    decides: Mapping[str, Rule] | None = None
    when: Rule = always
    since: Any = UNSET
    choices: tuple[Any, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    acts: bool = False

    def broken(self, value: Any) -> str | None:
        """Return the bound that a number is beyond, such as ``from 1``; None where it is within all."""
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        whole = isinstance(value, int)
        bounds = {
            "from": (self.at_least if self.at_least is not None or not whole else -_MOST, operator.ge),
            "above": (self.above, operator.gt),
            "up to": (self.at_most if self.at_most is not None or not whole else _MOST, operator.le),
            "below": (self.below, operator.lt),
        }
        for word, (bound, fits) in bounds.items():
            if bound is not None and not fits(value, bound):  # nothing fits a NaN
                return f"{word} {_number(bound)}"
        return None if whole or math.isfinite(value) else "that is finite"


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


NOTHING = Setting()


def setting(
    default: Any = dataclasses.MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    decides: str | Mapping[str, Rule] | None = None,
    when: Rule = always,
    **limits: Any,
) -> Any:
    """Return a dataclass field with choices, bounds, and the stages that it decides.

    Args:
        default: as in `dataclasses.field`.
        factory: its `default_factory`.
        decides: a stage (``extract``, ``answer``, ``align``, ``transfer``, ``eval``, ``analyze``), or stages with
            rules; None: the stage where its node is first read. See `undecisive` for a setting that changes no result.
        when: when the field enters the key of its one stage.
        limits: other attributes of `Setting`.
    """
    stages = {decides: when} if isinstance(decides, str) else decides
    known = Setting(decides=stages, when=when, **limits)
    given: dict[str, Any] = {"default": default} if factory is None else {"default_factory": factory}
    return dataclasses.field(metadata={_METADATA: known}, **given)


def undecisive(default: Any = dataclasses.MISSING, **known: Any) -> Any:
    """Return a field that enters no key: it changes no result, or the key holds its effect in another form.

    Args:
        default: as in `setting`.
        known: other arguments of `setting`.
    """
    return setting(default, decides={}, **known)


def known(field: dataclasses.Field[Any]) -> Setting:
    """Return the `Setting` of a field."""
    found: Setting = field.metadata.get(_METADATA, NOTHING)
    return found


def check(key: str, value: Any, about: Setting) -> None:
    """Refuse a value that is none of a setting's choices or out of its bounds; null is always allowed.

    Args:
        key: its name on the command line, for the message.
        value: of the right type; every item of a list or mapping is checked.
        about: the setting.

    Raises:
        RequestError: the message says what was got and what is allowed.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            check(f"{key}.{name}", item, about)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            check(key, item, about)
    elif value is not None:
        if about.choices and value not in about.choices:
            raise not_allowed(key, value, about.choices)
        if bound := about.broken(value):
            raise RequestError(f"{key}: a value {bound} is expected, got {_short(value)}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:20]}... ({len(text)} characters)"


def not_allowed(key: str, value: Any, allowed: Iterable[Any]) -> RequestError:
    """Return the refusal of a value that is none of those allowed."""
    names = [str(choice) for choice in allowed]
    return RequestError(
        f"{key}: got '{_short(value)}'; allowed: {', '.join(names)}{nearest(str(value), names)}"
    )


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
    """Return the settings of a node that decide a stage's result, by their names on the command line.

    Args:
        node: a dataclass instance; dataclasses in its fields, also inside mappings, are included.
        stage: the stage.
        choice: the strategies of the request, for rules that compare settings.
        path: the node's own name, such as ``method.update``.
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


def is_idle(root: Any, path: Sequence[str]) -> bool:
    """Return whether a setting that enters none of a request's keys changes nothing else either.

    Args:
        root: the dataclass instance that has it, at some depth.
        path: names of fields, and of items of mappings, that lead to it.
    """
    node = root
    for name in path:
        if isinstance(node, Mapping):
            node = node.get(name)
            continue
        fields = {field.name: known(field) for field in dataclasses.fields(node)} if _is_nested(node) else {}
        if (about := fields.get(name)) is None:
            return False  # part of a value, or of somebody's own class, about which nothing is known
        node = getattr(node, name)
        if about.acts or about.decides == {} or _is_since(node, about.since):
            return False
    return True


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
    """Return a class's name in keys; a class of pkt is named without its module, so that it may move within pkt."""
    return cls.__qualname__ if cls.__module__.startswith("pkt.") else f"{cls.__module__}.{cls.__qualname__}"


def _is_since(value: Any, since: Any) -> bool:
    return since is not UNSET and type(value) is type(since) and bool(value == since)


def plain(value: Any) -> Any:
    """Return a setting's value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
