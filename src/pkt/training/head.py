"""The student's read-out as the output terms see it: frozen head weight, its Gram matrix, chunked logits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pkt.models.architecture import Architecture
from pkt.objectives import (
    CHUNK,
    Objective,
    cross_entropy,
    divergence,
    output_cosine,
    output_cosine_dense,
    over_chunks,
)
from pkt.training.teacher import Distributions, shared_columns

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """Read-out of final-normed states, without ever holding positions x V numbers for more than a chunk."""

    arch: Architecture
    shared: Tensor | None = None  # ids that the teacher has too; the KL term covers these

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

    def lens(self, states_nD: Tensor) -> Tensor:
        """Return logits (n, V) of a layer's output, through the final norm."""
        return self.arch.read_out(self.arch.final_norm(states_nD.to(self.arch.device, self.arch.dtype)))

    def loss(self, states_nD: Tensor, labels_n: Tensor, kind: str) -> Tensor:
        """Return the output term: ``cosine`` (1 - cos(logits, one-hot label)) or ``ce``.

        Args:
            states_nD: final-normed states.
            labels_n: tokens to predict.
            kind: ``cosine`` or ``ce``.
        """
        if kind == "ce":
            return cross_entropy(states_nD, labels_n, self.read_out)
        if self.is_linear:
            return output_cosine(states_nD, labels_n, self.arch.head_weight().detach(), self.gram_DD)
        return output_cosine_dense(states_nD, labels_n, self.read_out)

    def to_teacher(
        self, states_nD: Tensor, labels_n: Tensor, teacher: Distributions, objective: Objective
    ) -> Tensor:
        """Return (1 - s) tau^2 D(teacher, student) + s CE, means over positions, s = `label_share`.

        Args:
            states_nD: final-normed states.
            labels_n: tokens to predict.
            teacher: the teacher's distributions at the same positions.
            objective: divergence, temperature and label share.
        """

        def differing(h_nD: Tensor, *kept: Tensor) -> Tensor:
            logits_nV = self.read_out(h_nD)
            if self.shared is not None:
                logits_nV = shared_columns(logits_nV, self.shared)
            return divergence(
                logits_nV,
                teacher.read(*kept),
                kind=objective.divergence,
                temperature=objective.temperature,
            ).sum()

        share = objective.label_share
        loss = (1.0 - share) * over_chunks(differing, states_nD, *teacher.tensors) / len(states_nD)
        if share > 0:
            loss = loss + share * cross_entropy(states_nD, labels_n, self.read_out)
        return loss

    @torch.no_grad()
    def top1(self, states_nD: Tensor) -> Tensor:
        """Return the likeliest token per position, (n,) int64."""
        return torch.cat([self.read_out(chunk).argmax(-1) for chunk in torch.split(states_nD, CHUNK)])
