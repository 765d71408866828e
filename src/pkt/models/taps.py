"""Read a forward pass, and run a part of it, with context managers; the model's code is not touched.

    tap          keep the states of chosen layers, inside autograd
    skip_below   start the decoder at a layer, from given states
    skip_above   stop the decoder after a layer
    recomputed   keep what enters each layer alone, and run it again for its gradient
    decode       final-normed states of a batch, without the head

All of them nest, and leave the model as it was, also when the body raises.
Shape suffixes: B rows, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture


class Interface(StrEnum):
    """Where in a layer a state is read.

    ``mlp`` and ``attention``: the sublayer's output before the residual addition; ``residual``: h_out - h_in
    of the layer (the sum of both where norms do not follow the addition); ``block``: h_out.
    """

    mlp = "mlp"
    attention = "attention"
    residual = "residual"
    block = "block"


@contextmanager
def tap(
    arch: Architecture, layers: Iterable[int], interface: Interface | str, *, retain_grad: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Keep the states of some layers at a supervision interface.

    Args:
        arch: the model.
        layers: layer numbers, from 1.
        interface: where in the layer.
        retain_grad: make ``states[k].grad`` available after a backward pass, also where no parameter requires
            a gradient. The values of the forward pass are the same.

    Yields:
        Layer -> (B, T, D), filled anew by each forward pass; in the graph, not detached.

    Raises:
        RequestError: a layer that does not exist, or an interface that this architecture does not have.
    """
    if arch.probe is not None:
        arch.probe.require_interface(interface)
    states: dict[int, Tensor] = {}
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for number in sorted(set(layers)):
            handles += _listen(arch, number, Interface(interface), states, retain_grad)
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _listen(
    arch: Architecture, number: int, interface: Interface, states: dict[int, Tensor], retain_grad: bool
) -> list[torch.utils.hooks.RemovableHandle]:
    from pkt.models.pass_through import PassThrough

    layer = arch.layer(number)
    assert not isinstance(layer, PassThrough), f"layer {number} is skipped, so it has no state to tap"

    if interface is Interface.block:

        def on_block(_m: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            out_BTD = first_output(output)
            states[number] = _tracked(out_BTD) if retain_grad else out_BTD
            return like(output, states[number]) if retain_grad else None

        return [layer.register_forward_hook(on_block)]
    if interface is Interface.residual:
        return _listen_to_residual(layer, number, states, retain_grad)
    sublayer = arch.sublayer_out(number, interface.value)
    return _listen_to_sublayer(layer, sublayer, number, states, retain_grad)


def _listen_to_residual(
    layer: nn.Module, number: int, states: dict[int, Tensor], retain_grad: bool
) -> list[torch.utils.hooks.RemovableHandle]:
    entering: list[_Kept] = []

    def on_entry(_m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering[:] = [_Kept(entering_state(args, kwargs))]

    def on_layer(_m: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        out_BTD, in_BTD = first_output(output), entering.pop().value()
        states[number] = _tracked(out_BTD - in_BTD) if retain_grad else out_BTD - in_BTD
        return like(output, _through(in_BTD, states[number], out_BTD)) if retain_grad else None

    return [
        layer.register_forward_pre_hook(on_entry, with_kwargs=True),
        layer.register_forward_hook(on_layer),
    ]


def _listen_to_sublayer(
    layer: nn.Module, sublayer: nn.Module, number: int, states: dict[int, Tensor], retain_grad: bool
) -> list[torch.utils.hooks.RemovableHandle]:
    shape: list[int] = []
    leaving: list[_Kept] = []

    def on_entry(_m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape[:] = entering_state(args, kwargs).shape[:2]  # OPT's MLP flattens its rows

    def on_sublayer(_m: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if not shape:
            return None  # another layer uses the same module (Zamba)
        out = first_output(output)
        state_BTD = out.reshape(*shape, out.shape[-1])
        if not retain_grad:
            leaving[:] = [_Kept(state_BTD)]
            return None
        states[number] = _tracked(state_BTD)
        return like(output, states[number].clone().reshape(out.shape))  # a copy: Falcon writes into it

    def on_layer(_m: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        shape.clear()
        if leaving:
            states[number] = leaving.pop().value()

    return [
        layer.register_forward_pre_hook(on_entry, with_kwargs=True),
        sublayer.register_forward_hook(on_sublayer),
        layer.register_forward_hook(on_layer),
    ]


class _Kept:
    """A state as it is now, although its layer may go on writing into it (Falcon adds its attention in place)."""

    def __init__(self, state: Tensor) -> None:
        self.state, self.version, self.copy = state, state._version, state.clone()

    def value(self) -> Tensor:
        """Return the state itself if nothing was written into it (gradients add up in the same order), or the copy."""
        return self.state if self.state._version == self.version else self.copy


def _tracked(state: Tensor) -> Tensor:
    """Make a state collect its gradient; where nothing below it is differentiated, it becomes a leaf."""
    if not torch.is_grad_enabled():
        return state
    if not state.requires_grad:
        state = state.detach().requires_grad_(True)
    state.retain_grad()
    return state


def _through(in_BTD: Tensor, residual_BTD: Tensor, out_BTD: Tensor) -> Tensor:
    """Return h_out, bit for bit, with the gradient of h_in + residual."""
    return out_BTD.detach() + (in_BTD - in_BTD.detach()) + (residual_BTD - residual_BTD.detach())


@contextmanager
def skip_below(arch: Architecture, first: int, states_BTD: Tensor) -> Iterator[None]:
    """Start the decoder at a layer: those below are passed through, and `first` receives given states.

    The result is exact. Positions and masks are still built from the batch; its tokens no longer matter.

    Args:
        arch: the model.
        first: the first layer that runs, from 1.
        states_BTD: what enters it.
    """

    def enter(
        _m: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (states_BTD, *args[1:]), dict(kwargs)
        return args, dict(kwargs) | {"hidden_states": states_BTD}

    handle = arch.layer(first).register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
    try:
        with _skipped(arch, range(1, first)):
            yield
    finally:
        handle.remove()


@contextmanager
def skip_above(arch: Architecture, last: int) -> Iterator[None]:
    """Stop after a layer: those above `last` (from 1) are passed through, unless the probe says they must run."""
    arch.layer(last)
    stops = arch.probe is None or arch.probe.check("stop").holds is True
    with _skipped(arch, range(last + 1, arch.depth + 1) if stops else ()):
        yield


@contextmanager
def recomputed(arch: Architecture, numbers: Iterable[int]) -> Iterator[None]:
    """Let some layers run twice in place of keeping what they compute; enter it before `tap` and `skip_below`.

    Hooks are then on the stand-ins, outside of what runs again, when no hook is there any more.
    """
    from pkt.models.pass_through import Recomputed

    with _replaced(arch, numbers, Recomputed):
        yield


@contextmanager
def _skipped(arch: Architecture, numbers: Iterable[int]) -> Iterator[None]:
    from pkt.models.pass_through import PassThrough

    with _replaced(arch, numbers, lambda layer: PassThrough(layer, arch.layer_returns)):
        yield


@contextmanager
def _replaced(
    arch: Architecture, numbers: Iterable[int], stand_in: Callable[[nn.Module], nn.Module]
) -> Iterator[None]:
    layers = arch.layers
    before = {number - 1: layers[number - 1] for number in numbers}
    try:
        for index, layer in before.items():
            layers[index] = stand_in(layer)
        yield
    finally:
        for index, layer in before.items():
            layers[index] = layer


def decode(arch: Architecture, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Run the decoder: tokens to final-normed states (B, T, D), without head and without KV cache.

    Raises:
        RequestError: the probe found that the model does not run, computes no finite numbers, or is no causal one.
    """
    if arch.probe is not None:
        arch.probe.require("runs")
        arch.probe.require("finite")
        arch.probe.require("causal")
    run: Callable[..., Any] = arch.decoder
    states_BTD: Tensor = run(
        input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False
    ).last_hidden_state
    return states_BTD


def entering_state(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return what a layer is given, of a hook's arguments."""
    state: Tensor = args[0] if args else kwargs["hidden_states"]
    return state


def first_output(output: Any) -> Tensor:
    """Return what a module returns, alone or first in a tuple or list."""
    state: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return state


def like(output: Any, state: Tensor) -> Any:
    """Return a changed state in the form of the module's own output: alone, or first in a tuple or list."""
    return type(output)([state, *output[1:]]) if isinstance(output, (tuple, list)) else state
