"""What records a store has, and the number that says so: another layout under the same number looks damaged.

Limitations: the columns of states in shards, models and metrics are no records, and are not looked at.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from pkt import methods, saving
from pkt.evaluation.results import Evaluation
from pkt.manifest import FORMAT
from pkt.methods.base import StageResult

# the layout of each format; a change takes the next number (`pkt.manifest`), a line here and one in docs/store.md
LAYOUTS = {5: "a4776b32f1dc9f58"}


def kinds(kind: type[Any]) -> Iterator[type[Any]]:
    """Yield the dataclasses among a class and its descendants that pkt defines."""
    if is_dataclass(kind) and kind.__module__.startswith("pkt."):
        yield kind
    for one in kind.__subclasses__():
        yield from kinds(one)


def lines(kind: Any, seen: set[Any]) -> Iterator[str]:
    """Yield a line for each dataclass of which a type is made, with the names and types of what is in the file."""
    if kind in seen or isinstance(kind, str):
        return
    seen.add(kind)
    parts = list(get_args(kind))
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        own = {one.name: hints[one.name] for one in fields(kind) if one.metadata != saving.APART}
        yield f"{kind.__name__}: " + ", ".join(f"{name}={hint}" for name, hint in sorted(own.items()))
        parts = list(own.values())
    for part in parts:
        yield from lines(part, seen)


def layout() -> list[str]:
    """Return the lines of every record that a stage leaves in the store (`pkt.saving`)."""
    seen: set[Any] = set()
    return sorted({line for kind in (Evaluation, *kinds(StageResult)) for line in lines(kind, seen)})


def test_a_layout_has_a_number_of_its_own():
    for module in pkgutil.iter_modules(methods.__path__, "pkt.methods."):
        importlib.import_module(module.name)
    found = layout()
    assert any(line.startswith("LayerAlignment: ") for line in found), found
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]
    assert list(LAYOUTS)[-1] == FORMAT
    assert LAYOUTS[FORMAT] == digest, f"format {FORMAT} is that of another layout; this one is {digest}"
