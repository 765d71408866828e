"""Which engine runs a model that is scored or asked: transformers, or vLLM."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pkt.evaluation.quiet import quiet

_PLACING = (
    "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend",
    "gpu_memory_utilization", "swap_space", "cpu_offload_gb", "max_num_seqs", "max_num_batched_tokens",
    "max_parallel_loading_workers", "disable_log_stats", "enforce_eager",
)  # fmt: skip


def deciding_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments of `vllm.LLM` that decide what it computes, and not only where and how fast."""
    return {name: value for name, value in given.items() if name not in _PLACING}


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that is run from its files.

    Attributes:
        where: its folder, or its name on the hub.
        revision: on the hub; None: the newest.
        dtype: of its weights.
        generation: its own generation settings.
        context: positions that it was made for.
        vocabulary: rows of its head.
        arguments: more of `vllm.LLM`, such as ``tensor_parallel_size``.
    """

    where: str
    revision: str | None = None
    dtype: str = "auto"
    generation: Any
    context: int
    vocabulary: int
    arguments: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def scorer_of(model: Any, tokenizer: Any, *, device: Any, **settings: Any) -> Iterator[Any]:
    """Yield what lm-eval sends its requests to.

    Args:
        model: a causal Hugging Face model; moved to `device` unless accelerate has spread it over several. Or a
            `Served`, which vLLM loads.
        tokenizer: its tokenizer, which is not changed.
        device: a torch device or its name.
        settings: of `pkt.evaluation.scorer.Scorer`.
    """
    if isinstance(model, Served):
        from pkt.evaluation.served import VllmScorer  # imports lm-eval: seconds

        with quiet():
            yield VllmScorer(model, tokenizer, **settings)
        return
    with quiet(), evaluating(model, device):
        from pkt.evaluation.scorer import Scorer  # imports lm-eval: seconds

        yield Scorer(model, tokenizer, **settings)


@contextmanager
def evaluating(model: Any, device: Any) -> Iterator[None]:
    """Move the model to the device; afterwards restore its mode and the random states, which lm-eval changes."""
    import numpy as np
    import torch

    training, states = model.training, (random.getstate(), np.random.get_state(), torch.get_rng_state())
    if getattr(model, "hf_device_map", None) is None:
        model.to(device)
    try:
        yield
    finally:
        model.train(training)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
