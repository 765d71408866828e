"""Sizes of the work, and random models and rows of these sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pkt.data.batching import Batch, collate
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from tiny import tiny_config

HEAD = 64  # channels of an attention head, where the width allows it


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a pair, of the rows, and of the two heads whose bases and map are made.

    Attributes:
        layer: the student layer that v1 and the frontier's stage train, from 1.
        rows: of a batch.
        tokens: of a row; the second half is the answer.
        device: where models, inputs and the work are: ``cpu`` or ``cuda``.
    """

    teacher_depth: int = 24
    teacher_width: int = 768
    student_depth: int = 16
    student_width: int = 512
    layer: int = 12
    vocabulary: int = 32_000
    rows: int = 8
    tokens: int = 128
    head_vocabulary: int = 32_000
    head_widths: tuple[int, int] = (5120, 4096)
    device: str = "cpu"

    def opposite(self, layer: int) -> int:
        """Return the teacher layer at the depth of a student layer."""
        return max(1, round(layer * self.teacher_depth / self.student_depth))

    def teacher(self) -> Architecture:
        """Make the teacher."""
        return self.model(self.teacher_depth, self.teacher_width, seed=1)

    def student(self) -> Architecture:
        """Make the untouched student."""
        return self.model(self.student_depth, self.student_width, seed=2)

    def model(self, depth: int, width: int, *, seed: int) -> Architecture:
        """Make a random Llama model in eval mode, float32."""
        heads = max(1, width // HEAD)
        config = tiny_config(
            "llama",
            depth=depth,
            width=width,
            vocab=self.vocabulary,
            context=2 * self.tokens,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=width // heads,
            intermediate_size=-(-8 * width // 3 // 32) * 32,
        )
        with torch.random.fork_rng(), torch.device(self.device):
            torch.manual_seed(seed)
            return Architecture.of(AutoModelForCausalLM.from_config(config).float().eval())

    def encoded(self, rows: int | None = None) -> Encoded:
        """Draw rows of equal length."""
        count = self.rows if rows is None else rows
        ids = torch.randint(
            3, self.vocabulary, (count, self.tokens), generator=torch.Generator().manual_seed(0)
        )
        return Encoded(input_ids=ids.tolist(), prompt_lengths=[self.tokens // 2] * count)

    def batch(self) -> Batch:
        """Return the rows of one batch."""
        return collate(self.encoded(), range(self.rows)).to(self.device)

    def heads(self) -> tuple[Tensor, Tensor]:
        """Draw the heads of a teacher and a student of `head_widths`."""
        generator = torch.Generator().manual_seed(3)
        teacher, student = (
            (0.02 * torch.randn(self.head_vocabulary, width, generator=generator)).to(self.device)
            for width in self.head_widths
        )
        return teacher, student


REFERENCE = Shape()
# of Llama 3.2 3B and TinyLlama 1.1B: work that fills a GPU
LARGE = Shape(
    teacher_depth=28, teacher_width=3072, student_depth=22, student_width=2048, layer=16, rows=4, tokens=512
)
SMALL = Shape(
    teacher_depth=6, teacher_width=192, student_depth=4, student_width=128, layer=3, vocabulary=4000, rows=4,
    tokens=64, head_vocabulary=4000, head_widths=(256, 192),
)  # fmt: skip
TINY = Shape(
    teacher_depth=3, teacher_width=48, student_depth=2, student_width=32, layer=2, vocabulary=320, rows=2,
    tokens=12, head_vocabulary=200, head_widths=(24, 16),
)  # fmt: skip


def few(shape: Shape) -> Shape:
    """Return the shape with a quarter of the rows, for work whose cost per row hardly depends on their number."""
    return replace(shape, rows=max(1, shape.rows // 4))


def one(shape: Shape) -> Shape:
    """Return the shape with one row of half the length, for work that the textbook does again and again."""
    return replace(shape, rows=1, tokens=max(8, shape.tokens // 2))
