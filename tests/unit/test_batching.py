"""Batches that a budget of tokens cuts."""

from __future__ import annotations

import pytest

from pkt.data.batching import epoch_batches


@pytest.mark.parametrize("tokens", [1, 30, 64, 10**6])
@pytest.mark.parametrize("count", [0, 1, 57])
def test_batches_by_tokens_hold_as_many_rows_as_fit(tokens, count):
    lengths = [5 + (i * 7) % 23 for i in range(count)]
    epochs = [epoch_batches(lengths, 4, seed=1, epoch=e, tokens=tokens) for e in (0, 0, 1)]
    assert epochs[0] == epochs[1]
    assert count < 2 or tokens > 10**5 or epochs[0] != epochs[2]
    for batches in epochs:
        assert sorted(row for batch in batches for row in batch) == list(range(count))
        for batch in batches:
            padded = len(batch) * max(lengths[row] for row in batch)
            assert padded <= tokens or len(batch) == 1
    if tokens == 64 and count == 57:
        used = sum(map(sum, [[lengths[row] for row in batch] for batch in epochs[0]]))
        assert used / (tokens * len(epochs[0])) > 0.6  # little is padding or left over
