"""Training of the nano models: packed documents, AdamW, a cosine schedule, an exact resume.

    corpus(kind, seed of the step) -> documents + <eos> -> rows of 128 tokens -> loss, answers weighing most

The text of a step depends on the step's number only, so a resumed run needs no state of the stream.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from nano.corpus import corpus
from nano.family import CONTEXT, EOS_ID, PAD_ID, Recipe
from nano.muon import Muon

log = logging.getLogger(__name__)
Report = Callable[[dict[str, Any]], None]
EVERY = 200
PROMPT_WEIGHT = 0.05
OUTER = 4.0  # rate of embeddings, head and norms, as a share of the layers': a small head cannot say what it is sure of
ANSWERS = re.compile(r"(?:(?:Answer|Result):|return| =)( [^;\n]+)|(?: in| is| say|:)( [A-Za-z]+)(?=\.)")


def weighted_ids(document: str, tokenizer: Tokenizer) -> tuple[list[int], list[float]]:
    """Tokenise a document and `<eos>`, with each token's weight in the loss.

    What has one right continuation (a task's answer, a sum's result, the object of a stated fact) weighs 1, the
    rest `PROMPT_WEIGHT`: names and operands that could as well be others would mostly add noise to the gradient.
    """
    encoding = tokenizer.encode(document)
    spans = [found.span(found.lastindex or 0) for found in ANSWERS.finditer(document)]
    inside = [any(first <= start and end <= last for first, last in spans) for start, end in encoding.offsets]
    ids, weights = [*encoding.ids, EOS_ID], [*(1.0 if within else PROMPT_WEIGHT for within in inside), 1.0]
    return ids[:CONTEXT], weights[:CONTEXT]


def pack(recipe: Recipe, step: int, tokenizer: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill a step's rows with whole documents, each closed by `<eos>`, and pad what is left.

    Returns:
        Token ids, int64, and the weight of each in the loss; both `(batch, CONTEXT)`.
    """
    stream = corpus(recipe.corpus, seed=recipe.seed * 1_000_000 + step)
    ids = torch.full((recipe.batch, CONTEXT), PAD_ID)
    weights = torch.zeros(recipe.batch, CONTEXT)
    row, used = 0, 0
    while True:
        document, weight = weighted_ids(next(stream), tokenizer)
        if used + len(document) > CONTEXT:
            row, used = row + 1, 0
        if row == recipe.batch:
            return ids, weights
        ids[row, used : used + len(document)] = torch.tensor(document)
        weights[row, used : used + len(document)] = torch.tensor(weight)
        used += len(document)


def rate_at(recipe: Recipe, step: int) -> float:
    """Return the learning rate: linear warm-up, then half a cosine down to 2 % of the peak."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def new_model(recipe: Recipe) -> Any:
    """Build the recipe's model with seeded random weights."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(LlamaConfig(**recipe.config(), attn_implementation="sdpa"))


def optimisers_of(model: Any) -> tuple[torch.optim.Optimizer, ...]:
    """Build Muon for the layers' matrices and AdamW for embeddings, head and norms.

    Muon's updates are scaled to AdamW's size, so that both follow one learning rate.
    """
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    outer = [p for n, p in model.named_parameters() if p.ndim != 2 or "layers" not in n]
    return Muon(inner, lr=0.0), torch.optim.AdamW(
        outer, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )


def _save(
    path: Path, model: Any, optimisers: tuple[torch.optim.Optimizer, ...], state: dict[str, Any]
) -> None:
    partial = path.with_suffix(".partial")
    moments = [optimiser.state_dict() for optimiser in optimisers]
    torch.save(state | {"model": model.state_dict(), "optimisers": moments}, partial)
    partial.replace(path)


def _resumed(model: Any, optimisers: tuple[torch.optim.Optimizer, ...], path: Path) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, moments in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(moments)
    log.info("resumed from step %d", state["step"])
    return state["step"], state["seconds"]


def train_step(
    model: Any,
    optimisers: tuple[torch.optim.Optimizer, ...],
    batch: tuple[torch.Tensor, torch.Tensor],
    rate: float,
) -> float:
    """Take one step on a batch of ids and weights; return its weighted mean loss in nats per token."""
    ids_BT, weights_BT = batch
    logits_BTV = model(input_ids=ids_BT[:, :-1], use_cache=False).logits
    labels, weights = ids_BT[:, 1:].reshape(-1), weights_BT[:, 1:].reshape(-1)
    losses = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), labels, reduction="none")
    loss = (losses * weights).sum() / weights.sum()
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser, share in zip(optimisers, (1.0, OUTER), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate * share
        optimiser.step()
    return loss.item()


def train(
    recipe: Recipe,
    model: Any,
    tokenizer: Tokenizer,
    *,
    checkpoint: Path,
    report: Report,
    stop_after: int | None = None,
) -> Any:
    """Train a model to the end of its recipe, from the checkpoint if there is one.

    Args:
        recipe: What to do.
        model: The model to start from; its weights are replaced when the checkpoint exists.
        tokenizer: The family's tokenizer.
        checkpoint: File that is written every `EVERY` steps, atomically.
        report: Gets a record every `EVERY` steps: step, mean loss since the last one, seconds so far.
        stop_after: Stop at this step, as a kill would; for tests and rehearsals.

    Returns:
        The trained model, in evaluation mode.
    """
    optimisers = optimisers_of(model)
    first, seconds = _resumed(model, optimisers, checkpoint)
    model.train()
    begun, losses = time.monotonic() - seconds, []
    for step in range(first, min(recipe.steps, stop_after or recipe.steps)):
        losses.append(train_step(model, optimisers, pack(recipe, step, tokenizer), rate_at(recipe, step)))
        done = step + 1
        if done % EVERY == 0 or done == recipe.steps:
            seconds = time.monotonic() - begun
            loss = sum(losses) / len(losses)
            report({"model": recipe.name, "step": done, "loss": loss, "seconds": seconds})
            _save(checkpoint, model, optimisers, {"step": done, "seconds": seconds})
            losses = []
    return model.eval()
