"""Tiny pairs on disk and the workbench of a request on them, for LaTen's tests."""

from __future__ import annotations

import json

import pytest

from pkt.config import (
    BenchmarkConfig,
    CheckpointSpec,
    Config,
    DataConfig,
    OptimConfig,
    PairConfig,
    SplitSizes,
)
from pkt.mapping import Depth
from pkt.methods.workbench import Workbench
from pkt.objectives import CrossEntropy, Objective
from pkt.semantics import Ridge
from tiny import tiny_model, tiny_tokenizer

PAIRS = [
    ("llama", {}, {}),
    ("qwen3", {"head_dim": 12}, {"tie_word_embeddings": True}),
    ("qwen2", {"width": 32}, {"width": 48}),  # a student wider than its teacher
    ("llama", {"depth": 4, "num_key_value_heads": 4}, {"num_key_value_heads": 1}),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Call with a family and sizes of teacher and student; returns their folders."""
    done = {}

    def make(family="llama", teacher=None, student=None):
        sizes = ({"depth": 6, "width": 48} | (teacher or {}), {"depth": 4, "width": 32} | (student or {}))
        key = json.dumps([family, *sizes])
        if key not in done:
            root = tmp_path_factory.mktemp(family)
            for seed, (role, own) in enumerate(zip(("teacher", "student"), sizes, strict=True), start=1):
                tiny_model(family, seed=seed, **own).save_pretrained(root / role)
                tiny_tokenizer().save_pretrained(root / role)
            done[key] = root
        return done[key]

    return make


def bench_of(pair, root, *, dtype="float32", optim=None, **sizes):
    spec = {role: CheckpointSpec(checkpoint=str(root / role), dtype=dtype) for role in ("teacher", "student")}
    splits = {"extract": 3, "align": 20, "train": 8, "validation": 6} | sizes
    return Workbench(
        config=Config(
            verb="transfer",
            output_dir="",
            model=PairConfig(name="tiny", **spec),
            benchmark=BenchmarkConfig(name="custom", tasks=["custom"]),
            data=DataConfig(
                train=str(pair["root"] / "train.jsonl"),
                test=str(pair["root"] / "test.jsonl"),
                sizes=SplitSizes(**splits),
            ),
            optim=OptimConfig(**(optim or {})),
        ),
        mapping=Depth(),
        semantics=Ridge(),
        objective=Objective(terms={"ce": CrossEntropy()}),
        cache_dir=root,
    )
