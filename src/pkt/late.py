"""Libraries that take seconds to import, under names that import them at their first use.

    from pkt.late import torch      nothing is imported
    torch.zeros(3)                  now it is

A request that is refused, or whose results are all there, needs none of them: its settings, keys and tables are plain
Python. Every module of pkt gets these libraries from here; what is used while a module is executed (a base class, a
default of an argument) imports at once, which `tests/unit/test_imports.py` finds.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ContextDecorator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["Conv1D", "LoraLayer", "Tensor", "functional", "nn", "peft", "torch", "transformers"]


class _Late(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        module = sys.modules.get(self.__name__) or import_module(self.__name__)
        return getattr(module, name)


class _LateTorch(_Late):
    """torch; its switches of gradients decorate functions without it."""

    def __getattr__(self, name: str) -> Any:
        if name in ("no_grad", "enable_grad", "inference_mode") and "torch" not in sys.modules:
            return lambda: _Switch(name)
        return super().__getattr__(name)


class _Switch(ContextDecorator):
    """`torch.no_grad()` and its like, which are had from torch when a call of the decorated function begins."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _recreate_cm(self) -> _Switch:
        return _Switch(self.name)  # calls may nest

    def __enter__(self) -> None:
        self.own: AbstractContextManager[Any] = getattr(import_module("torch"), self.name)()
        self.own.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self.own.__exit__(*raised)


class _Named(type):
    """Makes a class that stands for one of a library's: it tells its instances, of which there are none before."""

    def __instancecheck__(cls, value: object) -> bool:
        loaded = sys.modules.get(cls.__module__)
        return loaded is not None and isinstance(value, getattr(loaded, cls.__name__))


if TYPE_CHECKING:
    import peft as peft
    import torch as torch
    import transformers as transformers
    from peft.tuners.lora import LoraLayer as LoraLayer
    from torch import Tensor as Tensor
    from torch import nn as nn
    from torch.nn import functional as functional
    from transformers.pytorch_utils import Conv1D as Conv1D
else:
    torch, nn, functional = _LateTorch("torch"), _Late("torch.nn"), _Late("torch.nn.functional")
    transformers, peft = _Late("transformers"), _Late("peft")
    Tensor = _Named("Tensor", (), {"__module__": "torch"})
    Conv1D = _Named("Conv1D", (), {"__module__": "transformers.pytorch_utils"})
    LoraLayer = _Named("LoraLayer", (), {"__module__": "peft.tuners.lora"})
