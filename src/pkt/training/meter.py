"""Count what a run costs, so that methods can be compared at equal budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Meter:
    """Forward tokens (padding left out) of one model."""

    forward_tokens: int = 0
    forward_passes: int = 0

    def count(self, tokens: int) -> None:
        """Add one forward pass over `tokens` tokens."""
        self.forward_tokens += tokens
        self.forward_passes += 1
