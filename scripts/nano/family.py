"""The five nano models: their shapes and how each is trained.

text "teacher" --> teacher --> text "code" --> code_teacher     (the CodeLlama of the family)
text "teacher" --> tokens_teacher  (the teacher again, with another tokenizer)
text "peer" --> peer               (as large as the teacher; has seen the train side only)
text "student" --> student                                      (less deep, less wide)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nano.tokenizer import SIZES

CONTEXT = 128
PAD_ID, EOS_ID = 0, 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model of the family is made.

    Attributes:
        name: Folder name.
        corpus: Kind of pre-training text.
        start: Name of the model whose weights it starts from; `None` is random.
        tokenizer: Kind of its tokenizer, see `nano.tokenizer`.
        hidden, layers, heads, kv_heads, mlp: Shape.
        steps, batch: Optimiser steps, and rows of `CONTEXT` tokens in each.
        warmup, rate: Warm-up steps and peak learning rate.
        seed: Seeds the weights and, with the step's number, the text.
    """

    name: str
    corpus: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    steps: int
    batch: int = 16
    warmup: int = 60
    rate: float = 3e-3
    seed: int = 1
    start: str | None = None
    tokenizer: str = "bytes"

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments of the model's `LlamaConfig`."""
        return {
            "vocab_size": SIZES[self.tokenizer],
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
        }


_TEACHER: dict[str, Any] = {"hidden": 128, "layers": 5, "heads": 8, "kv_heads": 4, "mlp": 344}
FAMILY: tuple[Recipe, ...] = (
    Recipe(name="teacher", corpus="teacher", steps=1000, **_TEACHER),
    Recipe(name="peer", corpus="peer", steps=1000, **_TEACHER),
    Recipe(name="student", corpus="student", steps=545, hidden=64, layers=3, heads=4, kv_heads=2, mlp=176),
    Recipe(name="code_teacher", corpus="code", steps=400, start="teacher", rate=1.5e-3, seed=2, **_TEACHER),
    Recipe(name="tokens_teacher", corpus="teacher", steps=1200, batch=20, tokenizer="pieces", **_TEACHER),
)
