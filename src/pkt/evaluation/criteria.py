"""When text that is generated ends: at a stop string, or because the model's logits are not numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import LogitsProcessor, StoppingCriteria

from pkt.errors import PktError
from pkt.late import torch


class Stop(StoppingCriteria):  # type: ignore[misc]
    """Stop a row once its new text holds one of the stop strings."""

    def __init__(self, tokenizer: Any, strings: Sequence[str], start: int) -> None:
        self.tokenizer, self.strings, self.start = tokenizer, tuple(strings), start
        self.tail = max(8, *map(len, strings))  # tokens that certainly hold a whole stop string

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return which rows are done; nothing is remembered, because beams change places."""
        recent = input_ids[:, max(self.start, input_ids.shape[1] - self.tail) :].tolist()
        done = [
            any(string in text for string in self.strings) for text in self.tokenizer.batch_decode(recent)
        ]
        return torch.tensor(done, device=input_ids.device)


class Numbers(LogitsProcessor):  # type: ignore[misc]
    """Stop where the model's logits are not numbers: what would be decoded says nothing about the model."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits as they are."""
        check_numbers(scores)
        return scores


def check_numbers(logits: torch.Tensor) -> None:
    """Refuse logits, or what was computed from them, that are NaN.

    Raises:
        PktError: some are.
    """
    if bool(logits.isnan().any()):
        raise PktError(
            "the model's logits are not numbers: its states overflow. In half precision a good model's may: load it in "
            "float32 (model.teacher.dtype, model.student.dtype). In float32 its weights are too large: if it was just "
            "trained, lower optim.lr"
        )
