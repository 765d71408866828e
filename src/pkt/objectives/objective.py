"""The terms of a transfer and their weights, as a config node."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pkt.errors import nearest
from pkt.objectives.layers import fisher_distance, geometry_distance, mean_square
from pkt.objectives.terms import ReadOut, cosine_distance

CHOICES = {
    "layer": ("cosine", "mse", "fisher", "geometry", "none"),
    "output": ("cosine", "ce", "kl", "none"),
    "positions": ("answer", "all"),
    "balance": ("none", "auto"),
    "divergence": ("forward", "reverse", "js"),
    "teacher": ("cached", "live"),
    "relation": ("cka", "cosine"),
    "scope": ("sequence", "batch"),
}

LayerTerm = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Student states (N, D), targets (N, D), sequence of each position (N) -> the term's mean."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """L = layer_weight * L_layer + output_weight * L_output (v1: both cosine, weights 1, answer positions).

    Attributes:
        layer: ``cosine`` (1 - mean cos to the mapped teacher state), ``mse``, ``fisher`` (second-order KL of the
            read-outs), ``geometry`` (token-token relations) or ``none``.
        layer_weight: its weight, above 0.
        positions: of the layer term: ``answer`` (those that predict an answer token) or ``all`` (no padding).
        balance: ``auto`` rescales the layer term at each step to the size of the output term, before the
            weights; ``none`` leaves it.
        output: ``cosine`` (1 - mean cos of the logits to the one-hot label), ``ce``, ``kl`` (divergence to the
            teacher's distribution) or ``none``.
        output_weight: its weight, above 0.
        divergence: of ``output=kl``: ``forward``, ``reverse`` or ``js``.
        temperature: tau of ``output=kl``, above 0; the term is multiplied with tau^2.
        label_share: share of cross-entropy in ``output=kl``: (1 - s) tau^2 D + s CE; 0 <= s < 1.
        teacher: of ``output=kl``: ``cached`` (log-probabilities kept by `align`) or ``live`` (a teacher forward
            pass at every step).
        top_k: tokens per position that are kept of the teacher's distribution, and that the Fisher term covers
            one by one; the rest is one tail bucket. None: all.
        relation: of ``layer=geometry``: ``cka`` or ``cosine``.
        scope: of ``layer=geometry``: relations among the tokens of one ``sequence`` or of the whole ``batch``.

    Raises:
        ValueError: an unknown choice, a weight of a used term that is not above 0, or no term at all.
    """

    layer: str = "cosine"
    layer_weight: float = 1.0
    positions: str = "answer"
    balance: str = "none"
    output: str = "cosine"
    output_weight: float = 1.0
    divergence: str = "forward"
    temperature: float = 1.0
    label_share: float = 0.0
    teacher: str = "cached"
    top_k: int | None = 64
    relation: str = "cka"
    scope: str = "sequence"

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
        self._check_numbers()

    def _check_numbers(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature is a number above 0, got {self.temperature}")
        if not 0 <= self.label_share < 1:
            raise ValueError(
                f"label_share is a share, 0 or more and below 1, got {self.label_share}; output=ce is all labels"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is a number of tokens, at least 1 (null: all), got {self.top_k}")
        if self.balance == "auto" and "none" in (self.layer, self.output):
            raise ValueError(
                "balance=auto compares the layer term with the output term, and one of them is none"
            )

    @property
    def per_sequence(self) -> bool:
        """Whether the layer term is a mean over sequences instead of positions."""
        return self.layer == "geometry" and self.scope == "sequence"

    @property
    def reads_teacher_output(self) -> bool:
        """Whether the output term needs the teacher's distribution."""
        return self.output == "kl"

    def layer_term(self, read_out: ReadOut) -> LayerTerm:
        """Return the layer term.

        Args:
            read_out: student states to logits, through the final norm (the Fisher term needs it).
        """
        terms: dict[str, LayerTerm] = {
            "cosine": lambda h, target, _: cosine_distance(h, target),
            "mse": lambda h, target, _: mean_square(h, target),
            "fisher": lambda h, target, _: fisher_distance(h, target, read_out, top_k=self.top_k),
            "geometry": self._geometry,
        }
        return terms[self.layer]

    def _geometry(self, states_ND: Tensor, targets_ND: Tensor, sequence_N: Tensor) -> Tensor:
        sequence_N = sequence_N if self.scope == "sequence" else sequence_N.new_zeros(len(sequence_N))
        return geometry_distance(states_ND, targets_ND, sequence_N, relation=self.relation)
