"""Layer gradient x activation by captum: a forward and a backward pass per layer, logits of every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Rows:
    input_ids: Tensor
    attention_mask: Tensor
    supervised: Tensor


def example_losses(model: Any, batch: Any) -> Tensor:
    """Mean answer-token cross-entropy per example, from the whole model's logits."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    labels = functional.pad(batch.input_ids[:, 1:], (0, 1))
    losses = functional.cross_entropy(logits.transpose(1, 2).float(), labels, reduction="none")
    return (losses * batch.supervised).sum(1) / batch.supervised.sum(1)


def captum_products(arch: Any, batch: Any, interface: str) -> list[Tensor]:
    """g * h per layer, (B, T, D) each."""
    from captum.attr import LayerGradientXActivation

    def wrapper(ids: Tensor) -> Tensor:
        return example_losses(arch.model, Rows(ids, batch.attention_mask, batch.supervised))

    numbers = range(1, arch.depth + 1)
    modules = [arch.layer(n) if interface == "block" else arch.sublayer_out(n, "mlp") for n in numbers]
    return [
        LayerGradientXActivation(wrapper, module).attribute(batch.input_ids).detach().double()
        for module in modules
    ]


def reduced(products: Tensor, reduce: str) -> Tensor:
    flat = products.flatten(1)
    return {
        "example": flat.sum(1).abs().mean(),
        "signed": flat.sum(1).mean(),
        "abs": flat.abs().sum(1).mean(),
        "l2": flat.norm(dim=1).mean(),
    }[reduce]
