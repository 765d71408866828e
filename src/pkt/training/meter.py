"""Count what a run costs, so that methods can be compared at equal budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(kw_only=True)
class Meter:
    """Forward work of one model, padding left out.

    Attributes:
        forward_tokens: tokens that went through it, whatever share of its layers ran.
        layer_tokens: tokens times the layers that ran on them: what a cached prefix or a frontier saves.
    """

    forward_tokens: int = 0
    layer_tokens: int = 0

    def count(self, tokens: int, *, layers: int) -> None:
        """Add one forward pass of `tokens` tokens through `layers` layers."""
        self.forward_tokens += tokens
        self.layer_tokens += tokens * layers

    def restore(self, counted: Mapping[str, int]) -> None:
        """Go on from what an earlier process had counted (`dataclasses.asdict` of its meter)."""
        self.forward_tokens, self.layer_tokens = counted["forward_tokens"], counted["layer_tokens"]
