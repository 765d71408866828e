"""An adapter that starts from factors: two peft adapters on each matrix, one that trains and one that is taken off.

    W x + scale (B A drop(x) - B0 A0 x),   (A, B) = (A0, B0) at the beginning

This is LoRA from (A0, B0) on W - scale B0 A0, and the student's function is unchanged at the beginning. B0 A0 is
kept as a second, frozen adapter instead of being subtracted from W: the same function and gradient, without a
float32 copy of W and without rounding W - scale B0 A0 to the student's dtype.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from pkt.models.surgery import matrix_OI
from pkt.training.lora_start import LoraStart

TRAINED, _TAKEN_OFF = "default", "start"  # names of the two adapters


@torch.no_grad()
def begin(adapter: PeftModel, config: Any, start: LoraStart) -> None:
    """Set the trained adapter to (A0, B0), and take scale B0 A0 off with a second, frozen one.

    Args:
        adapter: a PEFT model with the adapter that trains.
        config: its LoRA config.
        start: factors of every adapted module.
    """
    frozen = copy.copy(config)
    frozen.lora_dropout = 0.0
    adapter.add_adapter(_TAKEN_OFF, frozen)
    adapter.base_model.set_adapter([TRAINED, _TAKEN_OFF])
    for path, (A_rI, B_Or) in start.factors.items():
        module = adapter.get_base_model().get_submodule(path)
        for name, sign in ((TRAINED, 1.0), (_TAKEN_OFF, -1.0)):
            own_A, own_B = _factors(module, name)
            assert own_A.shape == A_rI.shape, path
            assert own_B.shape == B_Or.shape, path
            own_A.data = A_rI.to(own_A.device, torch.float32, copy=True)
            own_B.data = B_Or.to(own_B.device, torch.float32) * sign
            own_A.requires_grad_(name == TRAINED)
            own_B.requires_grad_(name == TRAINED)


def joined(adapter: PeftModel) -> dict[str, Tensor]:
    """Return the weights of one adapter of twice the rank, [B, -B0] [A; A0], under peft's names."""
    trained, taken = (
        get_peft_model_state_dict(adapter, adapter_name=name, save_embedding_layers=False)
        for name in (TRAINED, _TAKEN_OFF)
    )
    assert trained.keys() == taken.keys()
    return {
        name: torch.cat([value, taken[name]], dim=1 if "_B" in name else 0).detach().cpu().contiguous()
        for name, value in trained.items()
    }


@torch.no_grad()
def folded(adapter: PeftModel) -> PreTrainedModel:
    """Fold W + scale (B A - B0 A0) into the student, in its own dtype, and return it without adapters."""
    for module in _wrapped(adapter):
        weight_OI = matrix_OI(module)
        # one sum in float32: adding the two adapters one after the other would round in between
        weight_OI.copy_(weight_OI.float() + _change_OI(module))
    plain: PreTrainedModel = adapter.unload()
    return plain


def _wrapped(adapter: PeftModel) -> Iterator[nn.Module]:
    for module in adapter.modules():
        if hasattr(module, "base_layer") and hasattr(module, "scaling"):
            yield module


def _factors(module: Any, name: str) -> tuple[Tensor, Tensor]:
    """Return A (r, in) and B (out, r) of one adapter of a module; an embedding's inputs are its tokens."""
    if name in module.lora_embedding_A:
        return module.lora_embedding_A[name], module.lora_embedding_B[name]
    return module.lora_A[name].weight, module.lora_B[name].weight


def _change_OI(module: Any) -> Tensor:
    """Return scale (B A - B0 A0) of a module, (out, in), float32."""
    total = None
    for name in (TRAINED, _TAKEN_OFF):
        A_rI, B_Or = _factors(module, name)
        change_OI: Tensor = module.scaling[name] * (B_Or.float() @ A_rI.float())
        total = change_OI if total is None else total + change_OI
    assert total is not None
    return total
