"""The contract matrix: every method with tiny settings, and the families that every invariant covers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cases import mostly_slow

TEACHER, STUDENT = {"depth": 4, "width": 24, "seed": 1}, {"depth": 3, "width": 16, "seed": 2}
FAMILIES = {  # real models of the last three tie the head to the embedding, and so do these
    "llama": {"num_key_value_heads": 1},
    "qwen3": {"tied": True},
    "gemma3_text": {"tied": True},
    "gpt2": {"tied": True},
}
PROJECTIONS = {  # ends of parameter names; GPT-2's fused map stands for q, k and v
    "up": ("mlp.up_proj.weight", "mlp.c_fc.weight"),
    "down": ("mlp.down_proj.weight", "mlp.c_proj.weight"),
    "v": ("self_attn.v_proj.weight", "attn.c_attn.weight"),
    "o": ("self_attn.o_proj.weight", "attn.c_proj.weight"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method as the matrix runs it.

    Attributes:
        settings: overrides, beside those that every run has.
        layers: student layers that it declares; None: the one that its extraction pairs.
        update: what it declares in them: ``none``, ``full`` (every parameter), ``lora`` and ``delta`` (up, down, v, o).
        refused: family -> what its refusal says.
        steps: optimiser steps that `transfer` takes.
    """

    settings: tuple[str, ...] = ()
    layers: tuple[int, ...] | None = (1, 2, 3)
    update: str = "lora"
    refused: Mapping[str, str] = field(default_factory=dict)
    steps: int = 4


FULL, LORA = "method.update.kind=full", "method.update.kind=lora"
RANK = ("method.update.rank=4", "method.update.alpha=8")
PAIRED = ("mapping=explicit", "mapping.layers=[[2,1],[4,3]]")
METHODS: dict[str, Case] = {
    "identity": Case(layers=(), update="none", steps=0),
    "sft": Case(settings=(FULL, "method.layers=[2]"), layers=(2,), update="full"),
    "seqkd": Case(
        settings=(FULL, "method.layers=[2]", "answer.max_new_tokens=4"), layers=(2,), update="full"
    ),
    "pissa": Case(settings=(*RANK, "method.layers=[1,3]", "method.update.dropout=0.1"), layers=(1, 3)),
    "kd": Case(
        settings=(FULL, "method.layers=[1,3]", "objective.terms.kl.teacher=live"),
        layers=(1, 3),
        update="full",
    ),
    "hidden_kd": Case(settings=(FULL, *PAIRED), layers=(1, 3), update="full"),
    "semalign": Case(settings=(LORA, *RANK, "method.update.dropout=0.1"), layers=None),
    # a map that is fitted once, at a weight that stays: tests of what learns say so themselves
    "semalign_joint": Case(
        settings=(
            FULL,
            "mapping=explicit",
            "mapping.layers=[[2,1],[3,2]]",
            "semantics=ridge",
            "objective.terms.layer.decay=constant",
            "objective.terms.layer.positions=all",  # a map of so few answer positions would be rounding
        ),
        layers=(1, 2),
        update="full",
    ),
    # without the map that only cut students can have
    "semalign_cut": Case(
        settings=(FULL, "mapping=explicit", "mapping.layers=[[2,1],[3,2]]", "semantics=ridge"),
        layers=(1, 2),
        update="full",
    ),
    # one pair in the middle: the frontier trains the last layer too, and the first stays
    "semalign_fisher": Case(
        settings=(FULL, "mapping=explicit", "mapping.layers=[[3,2]]"), layers=(2, 3), update="full"
    ),
    "semalign_geometry": Case(settings=(LORA, *RANK, *PAIRED, "method.update.dropout=0.1"), layers=(1, 3)),
    "seeking": Case(settings=RANK),
    # at the paper's rate the delta is lost between two float32 numbers at this size
    "laten": Case(
        settings=("method.rho=0.25", "method.steps=4", "method.lr=0.05", "method.align_rows=4"),
        update="delta",
        refused={
            "gemma3_text": "the teacher .* has no neurons that can be located: a norm follows its sublayers",
            "gpt2": "the teacher .* has no neurons that can be located: .* no projection gate",
        },
        steps=0,
    ),
}
TRAINED = tuple(name for name, case in METHODS.items() if case.steps)


def combinations(
    names: Iterable[str] = tuple(METHODS), by_default: Iterable[str] = tuple(METHODS)
) -> list[Any]:
    """Every method with every family that it does not refuse; by default some with one family, and one with all."""
    pairs = [(name, family) for name in names for family in FAMILIES if family not in METHODS[name].refused]
    some = {*by_default}
    return mostly_slow(
        pairs, lambda name, family: (name in some and family == "llama") or name == "semalign_joint"
    )
