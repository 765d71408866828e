"""A device that there is not: what stays on it and what meets the processor's numbers is found without a GPU.

    with elsewhere() as away:
        away(tensor)                 # its numbers on the pretended device
        away(tensor) @ other         # refused, as CUDA refuses it

Numbers are computed on the processor. What a real device does to their last bits is for the tests marked `gpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

AWAY = torch.device("cuda", 0)
_MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
_INDEXED = {Tensor.__getitem__, Tensor.__setitem__}


class _Away(Tensor):
    """Numbers that say that they are on the pretended device."""


class _Pretended(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        away = [isinstance(value, _Away) for value in given]
        if func == Tensor.device.__get__ and any(away):
            return AWAY
        if func is Tensor.numpy and any(away):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        goes = self._target(func, args, kwargs, any(away))
        if func not in _MOVES and func is not Tensor.copy_:
            # an index may be the processor's
            free = (
                {id(own) for own in tree_flatten(args[1])[0] if not isinstance(own, _Away)}
                if func in _INDEXED
                else set()
            )
            sides = {
                own
                for own, value in zip(away, given, strict=True)
                if value.dim() > 0 and id(value) not in free
            }
            if len(sides) > 1:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device: {getattr(func, '__name__', func)}"
                )
        plain_args, plain_kwargs = tree_map_only(
            _Away, lambda value: value.as_subclass(Tensor), (args, kwargs)
        )
        plain_args, plain_kwargs = tree_map_only(
            torch.device, lambda _: torch.device("cpu"), (plain_args, plain_kwargs)
        )
        if isinstance(plain_kwargs.get("device"), str):
            plain_kwargs["device"] = "cpu"
        if func is Tensor.to:
            plain_args = tuple("cpu" if isinstance(own, str) else own for own in plain_args)
        found = func(*plain_args, **plain_kwargs)
        return tree_map_only(Tensor, lambda value: value.as_subclass(_Away), found) if goes else found

    @staticmethod
    def _target(func: Any, args: Any, kwargs: Any, away: bool) -> bool:
        """Return whether the result is on the pretended device."""
        if func is Tensor.cpu:
            return False
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            return isinstance(args[1], _Away)
        named = [kwargs.get("device"), *(args[1:] if func is Tensor.to else ())]
        devices = [torch.device(own) for own in named if isinstance(own, str | torch.device)]
        return devices[0].type == AWAY.type if devices else away


@contextmanager
def elsewhere() -> Iterator[Callable[[Tensor], Tensor]]:
    """Pretend that there is another device, and yield what brings numbers to it."""
    with _Pretended():
        yield lambda values: values.as_subclass(_Away)
