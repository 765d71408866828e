"""Which of the student's parameters train, and how they end up in plain weights.

Everything that is not declared here is frozen. Weights that train are float32 whatever the student's dtype:
AdamW's steps at these learning rates are smaller than a bfloat16 weight can resolve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.load import quiet
from pkt.models.surgery import lora_config


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """The parameters that train, by name, and the adapter that holds them (None when whole layers train)."""

    model: PreTrainedModel
    parameters: dict[str, nn.Parameter]
    adapter: PeftModel | None
    dtypes: dict[str, torch.dtype]

    @property
    def count(self) -> int:
        """Number of scalars that train."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def values(self) -> dict[str, Tensor]:
        """Copy the current values."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def restore(self, values: dict[str, Tensor]) -> None:
        """Write back what `values` copied."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def save_adapter(self, folder: Path, base: str) -> None:
        """Save the PEFT adapter (nothing for `update=full`); `base` is the student's checkpoint."""
        if self.adapter is not None:
            self.adapter.peft_config["default"].base_model_name_or_path = base
            # False: the vocabulary never changes, and peft would look for the base model on the hub to find out
            self.adapter.save_pretrained(str(folder), save_embedding_layers=False)

    @torch.no_grad()
    def merged(self) -> PreTrainedModel:
        """Fold the trained weights into the student, in its own dtype, and return it; call once, last."""
        if self.adapter is not None:
            merged: PreTrainedModel = self.adapter.merge_and_unload()
            return merged
        for name, parameter in self.parameters.items():
            parameter.data = parameter.data.to(self.dtypes[name])
        return self.model


def make_trainable(
    arch: Architecture,
    *,
    update: str,
    layers: Sequence[int],
    rank: int = 16,
    alpha: float = 16.0,
    targets: Sequence[str] = ("up", "down", "v", "o"),
    seed: int = 0,
) -> Trainable:
    """Freeze the student and declare what trains.

    Args:
        arch: the student; changed in place.
        update: ``lora`` (adapters on `targets` of `layers`) or ``full`` (every parameter of `layers`).
        layers: layer numbers, from 1.
        rank: LoRA rank.
        alpha: LoRA alpha; the update is scaled by alpha / rank.
        targets: projection roles that get an adapter.
        seed: of the adapters' start.
    """
    if update not in ("lora", "full"):
        raise RequestError(f"method.update={update!r} is not an update; allowed are lora and full.")
    model = arch.model
    model.requires_grad_(False)
    if update == "full":
        return _whole_layers(arch, layers)
    torch.manual_seed(seed)  # peft draws the adapters' start from the global generator
    with quiet():
        adapter = get_peft_model(model, lora_config(arch, layers, targets, rank=rank, alpha=alpha))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return Trainable(model=model, parameters=parameters, adapter=adapter, dtypes={})


def _whole_layers(arch: Architecture, layers: Sequence[int]) -> Trainable:
    chosen = {id(p) for layer in layers for p in arch.layer(layer).parameters()}
    parameters = {name: p for name, p in arch.model.named_parameters() if id(p) in chosen}
    dtypes = {name: p.dtype for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return Trainable(model=arch.model, parameters=parameters, adapter=None, dtypes=dtypes)
