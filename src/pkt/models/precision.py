"""What 16-bit numbers cost on this machine's processor: measured, because no list of processors is complete."""

from __future__ import annotations

import time
from functools import cache

from pkt.late import Tensor, torch

SLOW = 3.0  # times the seconds of float32, from which on the processor counts as one without units for a type
SIZE = 128  # rows and columns of the matrices that are multiplied: milliseconds


@cache
def slowdown(dtype: torch.dtype) -> float:
    """Return how many times as long as in float32 a product of matrices takes on the CPU: below 1 with units for it."""
    return _seconds(dtype) / _seconds(torch.float32)


def too_slow(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why a type is no use on a device, as the end of a message; None where it is.

    Args:
        dtype: of the numbers.
        device: GPUs are taken at their word.
    """
    if device.type != "cpu" or torch.finfo(dtype).bits >= 32 or (times := slowdown(dtype)) < SLOW:
        return None
    name = str(dtype).removeprefix("torch.")
    longer = f"a product of matrices takes {times:.0f} times as long as in float32"
    return f"this processor has no units for {name}: {longer}"


def _seconds(dtype: torch.dtype) -> float:
    """Return the least seconds of some products, the first of which warms up; other work may interrupt a few."""
    square = torch.ones(SIZE, SIZE, dtype=dtype)
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        square @ square
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def compute_device(values: Tensor) -> torch.device:
    """Return where values are multiplied in float64: their own device, unless that has none (MPS)."""
    return torch.device("cpu") if values.device.type == "mps" else values.device


def doubled(values: Tensor) -> Tensor:
    """Return values in float64, on their `compute_device`."""
    return values.to(compute_device(values)).double()
