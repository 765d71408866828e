"""What share of the learning rate each optimiser step has, and how far a training has come."""

from __future__ import annotations

import math

from pkt.config import OptimConfig


def elapsed(step: int, total: int) -> float:
    """Return where a step (from 1) is in a training: 0 at the first, 1 at the last, 0 where there is only one."""
    return (step - 1) / max(total - 1, 1)


def schedule(step: int, total: int, optim: OptimConfig) -> float:
    """Return the share of `optim.lr` at a step (from 1): linear warm-up, then the named decay to zero.

    ``one_cycle`` has its own warm-up (see `one_cycle`).

    Raises:
        ValueError: unknown schedule.
    """
    if optim.schedule == "one_cycle":
        return one_cycle(step, total)
    warmup = math.ceil(optim.warmup * total)
    if step <= warmup:
        return step / max(warmup, 1)
    progress = (step - warmup) / max(total - warmup, 1)
    # the last step still moves: decay reaches zero one step after the end
    progress *= 1 - 1 / max(total - warmup + 1, 1)
    match optim.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"optim.schedule={optim.schedule!r}; allowed are cosine, linear and constant.")


def one_cycle(step: int, total: int) -> float:
    """Return the share of the learning rate at a step (from 1) of one cycle: cosine up over 30 %, cosine down.

    From 1/25 to 1 to 1/250000: the defaults of torch's `OneCycleLR`, over total + 1 steps, so that the last step
    still moves.
    """
    peak = 0.3 * (total + 1) - 1
    start, end, progress = (
        (1 / 25, 1.0, (step - 1) / peak)
        if step - 1 <= peak
        else (1.0, 1 / 250_000, (step - 1 - peak) / (total - peak))
    )
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
