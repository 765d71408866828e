"""Calls of the kernel that Python does not offer, through ctypes; and how an interpreter forgets ctypes afterwards.

A program that finds one type of ctypes reads and writes any memory. Every type hangs in the list of its base's
subclasses, so emptying `sys.modules` is not enough: the types are taken out of these lists too.

Standard library only, loaded by the sandbox's child.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref
from types import ModuleType
from typing import Any

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_PACKAGES = ("ctypes", "_ctypes")


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library; integers are passed as long, bytes by their address.

    Raises:
        OSError: it returned -1.
    """
    function = getattr(_LIBRARY, name)
    function.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    given = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    result: int = function(*given)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def address(block: bytes) -> tuple[Any, int]:
    """Return a copy of a block of memory, to be kept alive, and where it lies."""
    held = ctypes.create_string_buffer(block, len(block))
    return held, ctypes.addressof(held)


def unlist(*modules: ModuleType) -> None:
    """Take the types of ctypes out of the lists of subclasses, before programs are forked from this interpreter.

    Args:
        modules: these, and those of ctypes, are never freed: a fork that forgets them need not take them apart.

    Raises:
        RuntimeError: some are still in a list.
    """
    numbers = {id(kind) for kind in _types()}
    for thing in gc.get_objects():
        if type(thing) is dict:  # a list of subclasses is a dict from address to weak reference
            for number in numbers & thing.keys():
                if isinstance(thing[number], weakref.ref):
                    del thing[number]
    if left := _types():
        raise RuntimeError(f"types of ctypes cannot be hidden from programs: {left[:3]}")
    kept: list[Any] = [
        *modules,
        *(sys.modules[name] for name in sys.modules if name.partition(".")[0] in _PACKAGES),
    ]
    kept.append(kept)


def forget() -> None:
    """Take ctypes out of this process's modules."""
    for name in [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]:
        del sys.modules[name]


def _types() -> list[type]:
    seen: set[type] = set()
    waiting: list[type] = [object]
    while waiting:
        kind = waiting.pop()
        if kind not in seen:
            seen.add(kind)
            waiting += type.__subclasses__(kind)
    return [kind for kind in seen if str(kind.__module__).partition(".")[0] in _PACKAGES]
