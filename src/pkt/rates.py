"""Which learning rate a method has, where a request names none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from pkt.config import OptimConfig


def learning_rate(optim: OptimConfig | DictConfig, method: str, kind: str | None) -> float | None:
    """Return the rate of a method where `optim.lr` is null: its own, that of what it trains, or the one for all.

    Args:
        optim: of the request.
        method: its name.
        kind: ``full`` or ``lora``; None: it has no such choice.
    """
    named, by_update = optim.lr_by_method, optim.lr_by_update
    for rates, key in ((named, method), (by_update, kind), (named, "default")):
        if key is not None and key in rates:
            return float(rates[key])
    return None


def update_kind(method: Mapping[Any, Any]) -> str | None:
    """Return what a method trains in its layers, by the node of its config; None where it has no such choice."""
    update = method.get("update")
    return str(update["kind"]) if isinstance(update, Mapping | DictConfig) and "kind" in update else None
