"""Sequence-level distillation: plain fine-tuning on what the teacher answers.

Idea: the likeliest answer of the teacher stands for its distribution over whole answers; the student learns it as if it
were a label. With `data.unlabelled` the answers come beside the labelled rows, without it in place of their labels.

Reference: Kim and Rush, "Sequence-Level Knowledge Distillation" (EMNLP 2016, arXiv 1606.07947), section 3.2.
Deviations: greedy answers instead of a beam's best (`answer.temperature` draws them); no interpolation with the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.methods.sft import Sft
from pkt.settings import undecisive


@dataclass(frozen=True, kw_only=True)
class SeqKd(Sft):
    """Fine-tuning on the teacher's answers; settings as in `Sft`."""

    name: str = undecisive("seqkd")

    def is_taught(self, unlabelled: bool) -> bool:
        """Return that the teacher's answers are what it learns."""
        return True
