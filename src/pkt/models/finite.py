"""Refuse weights that are not numbers: whatever is computed with them says nothing about a model."""

from __future__ import annotations

from typing import Any

from pkt.errors import PktError
from pkt.late import Tensor, torch


def check_finite(model: Any, whose: str, remedy: str) -> None:
    """Look through all parameters once.

    Args:
        model: any torch module.
        whose: such as ``the teacher 'org/name'``.
        remedy: what the user can do.

    Raises:
        PktError: a weight is NaN or infinite.
    """
    bad = {name: value for name, value in model.named_parameters() if not _finite(value.detach())}
    if bad:
        name, value = next(iter(bad.items()))
        count, more = int((~torch.isfinite(value.detach().float())).sum()), len(bad) - 1
        also = f", and some of {more} more tensor{'s' if more > 1 else ''}" if more else ""
        raise PktError(
            f"{whose} has weights that are not finite: {count} of {value.numel()} in {name}{also}. {remedy}"
        )


def _finite(value: Tensor) -> bool:
    """Whether all numbers are finite, without a copy: extremes are NaN where one number is."""
    if value.numel() == 0 or value.is_meta or not value.is_floating_point():
        return True
    if value.element_size() < 2:  # types of eight bits have no extremes
        value = value.float()
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(value))
