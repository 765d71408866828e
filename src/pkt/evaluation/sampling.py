"""Sampled answers: how many per row, at which temperature, and independent of the other rows in a batch.

    temperature 0   greedy, one answer per row
    temperature > 0 each answer of a row has a generator of its own, seeded by (seed, prompt, its number)

One uniform number per token picks from the cumulated distribution, so an answer depends on the model's logits and the
seed alone. Another batch size may still change an answer, because it changes the last bits of the logits.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are generated.

    Attributes:
        samples: answers per row.
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: the likeliest tokens that together have this probability are kept.
        seed: of the draws.
    """

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __str__(self) -> str:
        return f"eval.samples={self.samples}, eval.temperature={self.temperature}"

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def settings(self) -> dict[str, Any]:
        """Return the generation settings for lm-eval; none for greedy decoding, which tasks ask for themselves."""
        if self.greedy:
            return {}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}

    def identity(self) -> dict[str, Any]:
        """Return the settings that the scores' key holds: none for greedy decoding, which ignores them."""
        return {} if self.greedy else {"sampling": asdict(self)}


def row_seed(seed: int, prompt: str, number: int) -> int:
    """Return the seed of a row's answer, from 0 to 2^63 - 1."""
    digest = hashlib.sha256(f"{seed}/{number}/{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
