"""The terms of a transfer and their weights, as a config node."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pkt.errors import nearest

CHOICES = {
    "layer": ("cosine", "none"),
    "output": ("cosine", "ce", "none"),
    "positions": ("answer", "all"),
}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """L = layer_weight * L_layer + output_weight * L_output (v1: both cosine, weights 1, answer positions).

    Attributes:
        layer: ``cosine`` (1 - mean cos to the mapped teacher state) or ``none``.
        layer_weight: its weight, above 0.
        output: ``cosine`` (1 - mean cos of the logits to the one-hot label), ``ce`` or ``none``.
        output_weight: its weight, above 0.
        positions: of the layer term: ``answer`` (those that predict an answer token) or ``all`` (no padding).

    Raises:
        ValueError: an unknown choice, a weight of a used term that is not above 0, or no term at all.
    """

    layer: str = "cosine"
    layer_weight: float = 1.0
    output: str = "cosine"
    output_weight: float = 1.0
    positions: str = "answer"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"{name}={value} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}"
                )
        if self.layer == "none" and self.output == "none":
            raise ValueError(
                "layer=none with output=none leaves nothing to train on; choose at least one term"
            )
        for name in ("layer", "output"):
            weight = getattr(self, f"{name}_weight")
            if getattr(self, name) != "none" and not (math.isfinite(weight) and weight > 0):
                raise ValueError(
                    f"{name}_weight={weight} has to be a positive number; {name}=none leaves the term out"
                )
