"""The student's read-out as the output terms see it: frozen head weight, its Gram matrix, chunked logits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pkt.models.architecture import Architecture
from pkt.objectives import cross_entropy, output_cosine, output_cosine_dense

log = logging.getLogger(__name__)

CHUNK = 2048  # positions whose V-wide numbers are alive at once


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """Read-out of final-normed states, without ever holding positions x V numbers for more than a chunk."""

    arch: Architecture

    @cached_property
    def gram_DD(self) -> Tensor:
        """G = W^T W of the head, float32; the head is frozen, so it is computed once."""
        weight_VD = self.arch.head_weight().detach().float()
        return weight_VD.T @ weight_VD

    @cached_property
    def is_linear(self) -> bool:
        """Whether the logits are W h up to a positive scale, which the vocabulary-free cosine needs."""
        linear = self.arch.head_bias is None and self.arch.logit_softcap is None
        if not linear:
            log.warning(
                "the student's head has a bias or soft-capped logits: output cosine computed from logits"
            )
        return linear

    def read_out(self, states_nD: Tensor) -> Tensor:
        """Return logits (n, V)."""
        return self.arch.read_out(states_nD)

    def loss(self, states_nD: Tensor, labels_n: Tensor, kind: str) -> Tensor:
        """Return the output term: ``cosine`` (1 - cos(logits, one-hot label)) or ``ce``.

        Args:
            states_nD: final-normed states.
            labels_n: tokens to predict.
            kind: ``cosine`` or ``ce``.
        """
        if kind == "ce":
            return cross_entropy(states_nD, labels_n, self.read_out, chunk=CHUNK)
        if self.is_linear:
            return output_cosine(states_nD, labels_n, self.arch.head_weight().detach(), self.gram_DD)
        return output_cosine_dense(states_nD, labels_n, self.read_out, chunk=CHUNK)

    @torch.no_grad()
    def top1(self, states_nD: Tensor) -> Tensor:
        """Return the likeliest token per position, (n,) int64."""
        return torch.cat([self.read_out(chunk).argmax(-1) for chunk in torch.split(states_nD, CHUNK)])
