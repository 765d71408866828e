"""The student's read-out as terms see it: weight, Gram matrix, logits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.objectives.chunks import CHUNK
from pkt.objectives.distributions import shared_columns

log = logging.getLogger(__name__)

ReadOut = Callable[[Tensor], Tensor]
"""Final-normed states (N, D) -> logits (N, V)."""


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """The student's head, which reads final-normed states out to logits."""

    arch: Architecture
    shared: Tensor | None = None  # ids that the teacher has too; None: all
    counts_rest: bool = False  # whether its other tokens count, as one: those of a vocabulary of its own
    space: Tensor | None = None  # (V) bool, tokens that begin a word or end a text; None: no term asks

    @property
    def weight_VD(self) -> Tensor:
        """W of the head, without gradient."""
        return self.arch.head_weight().detach()

    @cached_property
    def gram_DD(self) -> Tensor:
        """G = W^T W of the head, float32; the head is frozen, so it is computed once."""
        weight_VD = self.weight_VD.float()
        return weight_VD.T @ weight_VD

    @cached_property
    def is_linear(self) -> bool:
        """Whether the logits are W h up to a positive scale, which the vocabulary-free cosine needs."""
        linear = self.arch.reading.linear
        if not linear:
            log.warning(
                "the student's head has a bias or soft-capped logits: output cosine computed from logits"
            )
        return linear

    def read_out(self, states_nD: Tensor) -> Tensor:
        """Return logits (n, V)."""
        return self.arch.read_out(states_nD)

    def read_shared(self, states_nD: Tensor, temperature: float) -> Tensor:
        """Return logits over the tokens that the teacher has too, which will be divided by a temperature."""
        logits_nV = self.read_out(states_nD)
        rest = temperature if self.counts_rest else None
        return logits_nV if self.shared is None else shared_columns(logits_nV, self.shared, rest=rest)

    def lens(self, states_nD: Tensor) -> Tensor:
        """Return logits (n, V) of a layer's output, through the final norm."""
        if self.arch.probe is not None:
            self.arch.probe.require("final_norm")
        return self.arch.read_out(self.arch.final_norm(states_nD.to(self.arch.device, self.arch.dtype)))

    @torch.no_grad()
    def top1(self, states_nD: Tensor) -> Tensor:
        """Return the likeliest token per position, (n,) int64."""
        return torch.cat([self.read_out(chunk).argmax(-1) for chunk in torch.split(states_nD, CHUNK)])
