"""Make right-padded batches of rows of similar lengths, in an order that a seed decides.

Shape suffixes: B rows, T positions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from pkt.data.encoding import NEW_WORD, SAME_TOKEN, Encoded
from pkt.late import Tensor, torch

POOL = 16  # batches that are sorted by length together
BEHIND = {"token": SAME_TOKEN, "word": NEW_WORD}
"""What has to follow a position of two vocabularies, by the name of the positions."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Right-padded rows.

    Attributes:
        input_ids: (B, T) int64; padding is 0, which no masked computation reads.
        attention_mask: (B, T) int64, 1 on tokens.
        supervised: (B, T) bool, positions that predict an answer token or EOS.
        index: the rows' indices in their split, in the batch's order.
        met: (B, T) int8, 0 but where the other model has read the same text (`Encoded.met`): 1 there, and twice what
            follows added; None: it reads the same tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    supervised: Tensor
    index: list[int]
    met: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            supervised=self.supervised.to(device),
            index=self.index,
            met=None if self.met is None else self.met.to(device),
        )


def collate(encoded: Encoded, rows: Sequence[int]) -> Batch:
    """Pad some rows on the right into one batch."""
    longest = max(encoded.lengths[row] for row in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    attention_mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    supervised = torch.zeros(len(rows), longest, dtype=torch.bool)
    met = None if encoded.met is None else torch.zeros_like(supervised, dtype=torch.int8)
    for b, row in enumerate(rows):
        length = encoded.lengths[row]
        input_ids[b, :length] = torch.tensor(encoded.input_ids[row])
        attention_mask[b, :length] = 1
        supervised[b, encoded.prompt_lengths[row] - 1 : length - 1] = True
        if met is not None and encoded.met is not None and encoded.follows is not None:
            met[b, encoded.met[row]] = 1 + 2 * torch.tensor(encoded.follows[row], dtype=torch.int8)
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        supervised=supervised,
        index=list(rows),
        met=met,
    )


def position_mask(batch: Batch, positions: str) -> Tensor:
    """Select the positions of a batch at which both models are compared, as (B, T) bool.

    Where they read other tokens, these are the positions at which both have read the same text: as many in the
    student's batch as in the teacher's, in the same order.

    Args:
        batch: right-padded rows.
        positions: ``answer`` (those that predict an answer token) or ``all`` (every non-padding one). Of the answer's,
            ``token`` are those where both models read a token of the same bytes next, and ``word`` those where a word
            begins.
    """
    mask_BT = batch.attention_mask.bool() if positions == "all" else batch.supervised
    if batch.met is None:
        return mask_BT
    if behind := BEHIND.get(positions, 0):
        return mask_BT & (batch.met & 2 * behind).bool()
    return mask_BT & batch.met.bool()


def chunked_mask(batch: Batch, begins_BT: Tensor) -> Tensor:
    """Select the positions that predict an answer token from where the row's first chunk begins, as (B, T) bool."""
    return batch.supervised & (begins_BT.cumsum(1) > 0)


def position_counts(encoded: Encoded, positions: str) -> list[int]:
    """Return how many positions `position_mask` selects in each row, without building a batch."""
    if encoded.met is not None and encoded.follows is not None:
        behind = BEHIND.get(positions, 0)
        spans = [
            (0, length) if positions == "all" else (prompt - 1, length - 1)
            for length, prompt in zip(encoded.lengths, encoded.prompt_lengths, strict=True)
        ]
        return [
            sum(
                first <= position < last and follows & behind == behind
                for position, follows in zip(*own, strict=True)
            )
            for *own, (first, last) in zip(encoded.met, encoded.follows, spans, strict=True)
        ]
    if positions != "all":
        return [
            length - prompt for length, prompt in zip(encoded.lengths, encoded.prompt_lengths, strict=True)
        ]
    return list(encoded.lengths)


def next_tokens(batch: Batch) -> Tensor:
    """Return the token after each position, (B, T) int64; 0 after the last."""
    return torch.nn.functional.pad(batch.input_ids[:, 1:], (0, 1))


def answer_labels(batch: Batch) -> Tensor:
    """Return the tokens that the answer's positions predict, row after row, as (n,) int64."""
    return next_tokens(batch)[batch.supervised]


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut all rows into batches by length, longest first (so that memory runs out at once or never)."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return _cut(order, batch_size)


Step = TypeVar("Step")


def epochs_of(
    epoch: Callable[[int], Sequence[Step]], *, epochs: int | None, steps: int | None
) -> list[list[Step]]:
    """Return the optimiser steps of a training, by epoch.

    Args:
        epoch: returns the steps of an epoch, by its number.
        epochs: how many there are; not read where `steps` says when it ends.
        steps: of the whole training; the last epoch is cut off there. None: all that the epochs have.
    """
    found: list[list[Step]] = []
    left = sys.maxsize if steps is None else steps
    most = sys.maxsize if steps is not None else epochs
    assert most is not None, "without steps the request has settled the epochs"
    while left and len(found) < most:
        found.append(list(epoch(len(found)))[:left])
        left -= len(found[-1])
    return found


def epoch_batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int, tokens: int | None = None
) -> list[list[int]]:
    """Cut all rows, shuffled, into batches of similar lengths; each row occurs once.

    Rows are shuffled, sorted by length within pools of 16 batches, cut, and the batches shuffled.

    Args:
        lengths: tokens per row.
        batch_size: rows per batch; the smallest batch of an epoch may have fewer.
        seed: together with `epoch` decides the order, the same on every machine.
        epoch: number of the epoch.
        tokens: of a batch, padding included, in place of `batch_size`; a longer row has a batch of its own.
    """
    rng = Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    pools = _cut(order, batch_size * POOL) if tokens is None else _within(order, lengths, tokens * POOL)
    batches: list[list[int]] = []
    for pool in pools:
        alike = sorted(pool, key=lambda row: lengths[row])
        batches += _cut(alike, batch_size) if tokens is None else _within(alike, lengths, tokens)
    rng.shuffle(batches)
    return batches


def _cut(order: list[int], size: int) -> list[list[int]]:
    assert size >= 1
    return [order[start : start + size] for start in range(0, len(order), size)]


def _within(order: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Cut rows, in their order, where one more would make rows times the longest exceed a number of tokens."""
    batches: list[list[int]] = []
    longest = 0
    for row in order:
        longest = max(longest, lengths[row])
        if not batches or (len(batches[-1]) + 1) * longest > tokens:
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return batches
