"""What a model's parts do, found by running them on a few numbers rather than by names in a config.

    head      plain W h + b, or what the model itself makes of it (scaled, soft-capped, masked, ...)
    norm      what it multiplies with, whether it subtracts the mean, whether it adds something
    layers    whether they return a state, or a state first in a tuple

Nothing here draws from a global generator, and the model is left as it was.
Shape suffixes: N positions, D width, V vocabulary rows of the head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from pkt.late import Tensor, nn, torch

log = logging.getLogger(__name__)

LOUD = 1000.0  # logits of this size make a soft cap show
QUIET = 0.05  # logits of this size show nothing of it
LARGE = 100.0  # beside states of this size, what a norm adds to their variance vanishes


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative error up to which two ways to compute the same numbers in a dtype agree."""
    return max(1e-4, 8 * torch.finfo(dtype).eps)


def exact(states: Tensor) -> Tensor:
    """Return numbers in float64 on the CPU: a layer's parts may be on several devices, and some know no float64."""
    return states.detach().cpu().double()


def distance(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected| over all numbers; infinite where one of them is not finite."""
    difference = (exact(found) - exact(expected)).norm() / exact(expected).norm().clamp_min(1e-30)
    return float(difference) if bool(difference.isfinite()) else float("inf")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a model makes logits of final-normed states.

    Attributes:
        plain: they are what the head module returns.
        linear: they are c * W h, with some c > 0.
        apart: how far small logits, which no cap bends, are from a multiple of what the head returns.
    """

    plain: bool
    linear: bool
    apart: float


@torch.no_grad()
def reading_of(model: Any, decoder: nn.Module, head: nn.Module, width: int) -> Reading:
    """Compare the model's logits of some random states with its head's.

    Args:
        model: a causal language model.
        decoder: its part below the head.
        head: the LM head.
        width: D.
    """
    base: Any = getattr(head, "base_layer", head)
    if base.weight.is_meta:  # offloaded by device_map: only what reads the weight itself has to know
        return Reading(plain=True, linear=False, apart=0.0)
    drawn_ND = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    states_ND = drawn_ND.to(base.weight.device, base.weight.dtype)
    states_ND = states_ND / head(states_ND).abs().max().clamp_min(1e-6)

    def both(size: float) -> tuple[Tensor, Tensor]:
        by_head = head(states_ND * size)
        if not bool(by_head.isfinite().all()):
            return by_head, by_head  # weights that are no numbers say nothing of what is done with them
        try:
            return logits_of(model, decoder, states_ND * size), by_head
        except Exception as error:  # the probe says whether the plain head is right
            log.debug("the model could not be run above its decoder: %s", error)
            return by_head, by_head

    near = tolerance(base.weight.dtype)
    logits, by_head = both(LOUD)
    straight = _apart(logits, by_head) <= near and not isinstance(getattr(base, "bias", None), Tensor)
    plain = logits is by_head or distance(logits, by_head) <= near
    return Reading(plain=plain, linear=straight, apart=_apart(*both(QUIET)))


def _apart(logits: Tensor, by_head: Tensor) -> float:
    """Return how far logits are from a positive multiple of others."""
    if logits is by_head:
        return 0.0
    found, head = exact(logits), exact(by_head)
    scale = float((found * head).sum() / head.square().sum().clamp_min(1e-30))
    return distance(found, scale * head) if scale > 0 else float("inf")


@cache
def _decoded() -> type[Any]:
    """Return the class of what a decoder returns; whatever else a model asks of it is None."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class Decoded(BaseModelOutputWithPast):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return None

    return Decoded


def logits_of(model: Any, decoder: nn.Module, states_ND: Tensor) -> Tensor:
    """Return logits (..., V) of final-normed states (..., D), by the model's own code above its decoder."""
    flat_1nD = states_ND.reshape(1, -1, states_ND.shape[-1])
    ids = torch.zeros(flat_1nD.shape[:2], dtype=torch.int64, device=states_ND.device)
    with _instead(decoder, lambda *_args, **_kwargs: _decoded()(last_hidden_state=flat_1nD)):
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.reshape(*states_ND.shape[:-1], logits.shape[-1])


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let another function run in a module's place."""
    before = module.__dict__.get("forward")  # accelerate puts its own there
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@dataclass(frozen=True, kw_only=True)
class Norm:
    """What a norm does: h -> gain * (h - mean) / size + shift.

    Attributes:
        gain_D: what it multiplies with, float32.
        centres: whether it subtracts the mean (LayerNorm), rather than not (RMSNorm).
        shifts: whether it adds something.
        scales: how far it is from giving the same for a state and for twice the state, which makes it a norm.
        near: relative error up to which a weight counts as the gain.
    """

    gain_D: Tensor
    centres: bool
    shifts: bool
    scales: float
    near: float

    def gain(self, weight: Any) -> Tensor | None:
        """Return the gain as the norm's weight has it, or one plus it; None where every channel keeps its size."""
        if isinstance(weight, Tensor) and weight.shape == self.gain_D.shape and not weight.is_meta:
            read = min((weight, weight + 1.0), key=lambda gain: self.distance(gain))
            if self.distance(read) <= self.near:
                return read
        return None if self.distance(torch.ones_like(self.gain_D)) <= self.near else self.gain_D

    def distance(self, gain_D: Tensor) -> float:
        """Return how far a weight is from the gain."""
        return distance(gain_D, self.gain_D)


@torch.no_grad()
def norm_of(norm: nn.Module, width: int, device: torch.device, dtype: torch.dtype) -> Norm:
    """Measure a norm on a state whose entries are +1 and -1 (mean 0, size 1), its opposite, and a constant one."""
    probe_D = torch.ones(width)
    probe_D[1::2] = -1
    if width % 2:
        probe_D[-3:] = torch.tensor([0.5, 0.5, -1.0])
    near = tolerance(dtype)

    def run(states_D: Tensor) -> Tensor:
        normed: Tensor = norm((LARGE * states_D).to(device, dtype)[None, None])[0, 0]
        return normed.float().cpu()

    there_D, back_D, flat_D = run(probe_D), run(-probe_D), run(torch.ones(width))
    gain_D = (there_D - back_D) / 2 / probe_D * float(probe_D.square().mean().sqrt())
    shift_D, size = (there_D + back_D) / 2, gain_D.norm().clamp_min(1e-30)
    return Norm(
        gain_D=gain_D.to(device),
        centres=float((flat_D - shift_D).norm() / size) < 0.5,
        shifts=float(shift_D.norm() / size) > near,
        scales=distance(run(2 * probe_D), there_D),
        near=near,
    )


class _Seen(Exception):  # noqa: N818  # ends a forward pass whose rest does not matter
    pass


@torch.no_grad()
def returned_by_layers(decoder: nn.Module, layer: nn.Module, device: torch.device) -> int | None:
    """Return how many things a layer returns in a tuple; None where it returns the state alone.

    A decoder treats all its layers alike, so the first one is enough; it runs on one token, and nothing runs above it.
    """
    found: list[int | None] = []

    def stop(_module: nn.Module, _args: Any, output: Any) -> None:
        found.append(len(output) if isinstance(output, (tuple, list)) else None)
        raise _Seen

    handle = layer.register_forward_hook(stop)
    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    devices = [device] if device.type == "cuda" else []
    try:  # an adapter's dropout may be on, and must draw the same numbers as if nobody had looked
        with torch.random.fork_rng(devices=devices), suppress(_Seen):
            decoder(input_ids=token, attention_mask=torch.ones_like(token), use_cache=False)
    finally:
        handle.remove()
    assert found, "the decoder runs its first layer"
    return found[0]
