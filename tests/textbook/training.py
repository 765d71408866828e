"""The obvious implementation of one transfer: teacher live, student whole, logits everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pkt.config import OptimConfig
from pkt.data.batching import epoch_batches
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, tap
from pkt.objectives import Objective
from pkt.training.schedule import schedule
from pkt.training.trainable import Update, make_trainable


def _padded(encoded: Encoded, rows: list[int]) -> tuple[Tensor, Tensor]:
    longest = max(len(encoded.input_ids[r]) for r in rows)
    ids, mask = (
        torch.zeros(len(rows), longest, dtype=torch.long),
        torch.zeros(len(rows), longest, dtype=torch.long),
    )
    for b, r in enumerate(rows):
        own = encoded.input_ids[r]
        ids[b, : len(own)], mask[b, : len(own)] = torch.tensor(own), 1
    return ids, mask


def _positions(encoded: Encoded, rows: list[int], positions: str) -> list[tuple[int, int]]:
    found = []
    for b, r in enumerate(rows):
        length, prompt = len(encoded.input_ids[r]), encoded.prompt_lengths[r]
        span = range(prompt - 1, length - 1) if positions == "answer" else range(length)
        found += [(b, t) for t in span]
    return found


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def same_moves(
    got: Mapping[str, Tensor], expected: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> None:
    """Compare how far weights went from where they started, to a thousandth of the way."""
    moves = {name: expected[name] - before[name] for name in before}
    furthest = max(float(move.abs().max()) for move in moves.values())
    assert furthest > 1e-3, "nothing was trained"
    for name, move in moves.items():
        # a move far below the furthest is float32's rounding of the weights themselves
        share = 1e-3 * max(float(move.abs().max()), furthest / 20)
        torch.testing.assert_close(
            got[name] - before[name], move, rtol=0, atol=share, msg=lambda m, n=name: f"{n}: {m}"
        )


def textbook_training(
    teacher: Any,
    student: Any,
    encoded: Encoded,
    *,
    pairs: list[tuple[int, int]],
    matrix: Tensor,
    interface: Interface,
    objective: Objective,
    update: str,
    layers: list[int],
    optim: OptimConfig,
) -> tuple[list[dict[str, float]], Any]:
    """Return the losses of every step and the trained student."""
    arch_t, arch_s = Architecture.of(teacher), Architecture.of(student)
    trainable = make_trainable(arch_s, Update(kind=update, rank=4, alpha=4.0), layers)
    optimiser = torch.optim.AdamW(trainable.parameters.values(), lr=optim.lr, weight_decay=0.0)
    losses = []
    plans = [epoch_batches(encoded.lengths, optim.batch_size, seed=0, epoch=e) for e in range(optim.epochs)]
    total = sum(len(plan) for plan in plans)
    for step, rows in enumerate((rows for plan in plans for rows in plan), start=1):
        optimiser.param_groups[0]["lr"] = optim.lr * schedule(step, total, optim)
        ids, mask = _padded(encoded, rows)
        with torch.no_grad(), tap(arch_t, [t for t, _ in pairs], interface) as states_t:
            arch_t.model(input_ids=ids, attention_mask=mask)
        with tap(arch_s, [k for _, k in pairs], interface) as states_s:
            logits = arch_s.model(input_ids=ids, attention_mask=mask).logits
        layer_terms = []
        for t, k in pairs:
            where = _positions(encoded, rows, objective.terms["layer"].positions)
            targets = [matrix @ (states_t[t][b, p] / states_t[t][b, p].norm()) for b, p in where]
            cosines = [_cosine(states_s[k][b, p], h) for (b, p), h in zip(where, targets, strict=True)]
            layer_terms.append(1 - torch.stack(cosines).mean())
        outputs = []
        for b, p in _positions(encoded, rows, "answer"):
            onehot = torch.zeros(logits.shape[-1])
            onehot[ids[b, p + 1]] = 1.0
            outputs.append(_cosine(logits[b, p], onehot))
        layer, output = torch.stack(layer_terms).mean(), 1 - torch.stack(outputs).mean()
        optimiser.zero_grad()
        (objective.terms["layer"].weight * layer + objective.terms["output"].weight * output).backward()
        torch.nn.utils.clip_grad_norm_(list(trainable.parameters.values()), optim.max_grad_norm)
        optimiser.step()
        losses.append({"loss_layer": float(layer.detach()), "loss_output": float(output.detach())})
    return losses, trainable.merged()
