"""Sensitivity of single weights with every gradient in memory, and the window of the largest sum by trying all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def textbook_sensitivity(model: Any, rows: Any) -> dict[str, Tensor]:
    """S with every gradient in memory, logits of every position, transformers' own labels."""
    totals = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in model.named_parameters()}
    for ids, prompt in zip(rows.input_ids, rows.prompt_lengths, strict=True):
        model.zero_grad()
        labels = torch.tensor([[-100] * prompt + ids[prompt:]], device=model.device)
        if (labels == -100).all():
            continue
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[:, :-1].float()
        functional.cross_entropy(logits[0], labels[0, 1:], ignore_index=-100).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                totals[name] += (parameter.detach().float() * parameter.grad.float()).abs()
    return totals


def brute_force(score: Tensor, shape: tuple[int, int]) -> tuple[int, int] | None:
    best, place = -1.0, None
    for row in range(score.shape[0] - shape[0] + 1):
        for column in range(score.shape[1] - shape[1] + 1):
            total = score[row : row + shape[0], column : column + shape[1]].double().sum().item()
            if total > best:
                best, place = total, (row, column)
    return place
