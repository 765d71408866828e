"""Bring numbers into the middle of float32's range without changing a digit of them."""

from __future__ import annotations

from pkt.late import Tensor, torch


def near_one(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return x times the power of two that brings the largest magnitude along `dim` into [1/2, 1); zeros stay.

    For terms that do not change with the scale of a state: squares of squares then neither overflow nor vanish, and
    because the factor is a power of two all digits, of the gradient too, are those without it.
    """
    largest = x.detach().abs().amax(dim, keepdim=True)
    factor: Tensor = torch.frexp(largest).mantissa / largest
    return x * torch.where(largest > 0, factor, 1.0)
