"""Checks of running a part of a model: from cached states, and up to a layer. See `pkt.models.probe`.

Each layer is run alone, from the states that leave the layer below it. If that gives what it gives in the whole model,
then so does a pass from any cut and up to any cut, for as many layer passes as one forward pass has.
"""

from __future__ import annotations

from contextlib import ExitStack

from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.behaviour import distance, tolerance
from pkt.models.findings import Check
from pkt.models.readings import Sample
from pkt.models.taps import Interface, skip_above, skip_below, tap


@torch.no_grad()
def cuts(arch: Architecture, sample: Sample) -> tuple[tuple[Check, ...], tuple[int, ...]]:
    """Check passes that start at a layer, and that end after one.

    Returns:
        The checks ``start`` and ``stop``, and the layers that cannot run alone.
    """
    with tap(arch, range(1, arch.depth + 1), Interface.block) as states:
        final_BTD = sample.decode()
    near = tolerance(arch.dtype)
    alone = {k: _error(arch, sample, states, k) for k in range(1, arch.depth + 1)}
    if not (middle := _from(arch, sample, states, final_BTD)) <= near:
        alone[arch.depth] = max(alone[arch.depth], middle)
    bound = tuple(k for k, error in alone.items() if not error <= near)
    stops = {k: _error(arch, sample, states, k, alone=False) for k in bound}
    ends = all(error <= near for error in stops.values())
    where = ", ".join(map(str, bound))
    start = Check(
        name="start",
        holds=not bound,
        number=max(alone.values()),
        sentence="a pass may start at any layer"
        if not bound
        else f"layers {where} give something else from cached states (borrowed keys and values?), so the cache of "
        "frozen layers (cache_prefix) is off below them: the same numbers, slower",
    )
    stop = Check(
        name="stop",
        holds=ends,
        number=max((stops or alone).values()),
        sentence="a pass may end after any layer"
        if ends
        else "a pass that ends below the last layer gives something else, so all layers run: the same numbers, slower",
    )
    return (start, stop), bound


def _error(
    arch: Architecture, sample: Sample, states: dict[int, Tensor], number: int, *, alone: bool = True
) -> float:
    """Return how far a layer's output is off when the layers above it do not run, nor (`alone`) those below it."""
    try:
        with ExitStack() as stack:
            if alone and number > 1:
                stack.enter_context(skip_below(arch, number, states[number - 1]))
            stack.enter_context(skip_above(arch, number))
            found = stack.enter_context(tap(arch, [number], Interface.block))
            sample.decode()
    except Exception:  # a layer that needs more than its states may fail in any way (a key that is not there)
        return float("inf")
    return distance(sample.real(found[number]), sample.real(states[number]))


def _from(arch: Architecture, sample: Sample, states: dict[int, Tensor], final_BTD: Tensor) -> float:
    """Return how far the decoder's output is off in a pass from the middle."""
    first = arch.depth // 2 + 1
    if first == 1:
        return 0.0
    try:
        with skip_below(arch, first, states[first - 1]):
            return distance(sample.real(sample.decode()), sample.real(final_BTD))
    except Exception:
        return float("inf")
