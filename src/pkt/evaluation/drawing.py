"""Draw answers inside a generation: one uniform number per row and token picks from the cumulated distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessor,
    MinPLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from pkt.evaluation.decoding import DRAWING, NONE
from pkt.late import torch

WARPERS = {
    "top_h": TopHLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
    "epsilon_cutoff": EpsilonLogitsWarper,
    "eta_cutoff": EtaLogitsWarper,
}


class Draw(LogitsProcessor):  # type: ignore[misc]
    """Leave one token per row, drawn from the distribution; greedy decoding then takes it."""

    def __init__(self, seeds: Sequence[int], temperature: float, kept: Mapping[str, Any]) -> None:
        """Prepare a batch.

        Args:
            seeds: one per row.
            temperature: divides the logits.
            kept: which tokens may be drawn, by transformers' names (``top_p``, ``top_k``, ...).
        """
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature
        named = {name: kept[name] for name in DRAWING if name in WARPERS and kept.get(name)}
        self.warps = [WARPERS[name](value) for name, value in named.items() if value != NONE.get(name)]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores that are 0 at the token drawn and minus infinity elsewhere."""
        logits_BV = scores.double() / self.temperature
        for warp in self.warps:
            logits_BV = warp(input_ids, logits_BV)
        cumulated_BV = logits_BV.softmax(-1).cumsum(-1)
        drawn = [torch.rand(1, generator=generator, dtype=torch.float64) for generator in self.generators]
        bound_B1 = torch.stack(drawn).to(scores.device) * cumulated_BV[:, -1:]
        pick_B1 = (cumulated_BV <= bound_B1).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, pick_B1, 0.0)
