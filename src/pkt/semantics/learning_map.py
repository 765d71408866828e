"""The map that goes on learning: a module with the closed form, and what it has learned since.

Shape suffixes: N positions, D width (D_T teacher, D_S student).
"""

from __future__ import annotations

from dataclasses import replace

from pkt.late import Tensor, nn, torch
from pkt.semantics.alignment import AlignmentMap


class LearningMap(nn.Module):
    """h* = (M + share C) (h - mean) [/ |h - mean|] + bias, from an `AlignmentMap`; C starts at zero.

    AdamW moves each entry of C by about the learning rate, however large its gradient is, so that `share` makes M as
    much slower; weight decay draws it to where it started, and not to zero. The mean and the bias do not train.
    """

    weight: Tensor
    bias: Tensor | None
    mean: Tensor | None

    def __init__(self, start: AlignmentMap, *, share: float | None) -> None:
        """Begin with a map.

        Args:
            start: the closed form.
            share: of the learning rate; None: nothing of it trains.
        """
        super().__init__()
        self.start, self.share = start, share
        for name in ("weight", "bias", "mean"):
            value = getattr(start, name)
            self.register_buffer(name, None if value is None else value.clone())
        self.change = None if share is None else nn.Parameter(torch.zeros_like(start.weight))

    @property
    def now(self) -> AlignmentMap:
        """The map as it is, through which a gradient reaches C."""
        weight = self.weight
        if self.change is not None and self.share is not None:
            weight = weight + self.share * self.change
        return replace(self.start, weight=weight, bias=self.bias, mean=self.mean)

    def forward(self, states_ND: Tensor) -> Tensor:
        """Map teacher states, (N, D_S) float32."""
        return self.now(states_ND)

    @torch.no_grad()
    def put(self, fitted: AlignmentMap) -> None:
        """Go on from another fit of the same strategy, in place."""
        for name, buffer in self.named_buffers():
            buffer.copy_(getattr(fitted, name))
