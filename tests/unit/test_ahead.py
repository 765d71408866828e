"""What the teacher says ahead of the student is counted as often as it is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pkt.training.teacher import Ahead


class Source:
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.counted = 0

    def of(self, batch):
        self.asked += batch.index
        return tuple(batch.index)

    def count(self, _batch) -> None:
        self.counted += 1


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("most", [1, 4])
def test_a_step_that_is_gone_through_twice_is_asked_and_counted_once(times, most):
    """`objective.balance=auto` compares the terms first, over all micro batches of a step."""
    source, steps = Source(), [[[0], [1]], [[2], [3]], [[0], [3]]]
    order = [rows for step in steps for rows in step]
    ahead = Ahead(source=source, order=order, make=lambda rows: SimpleNamespace(index=rows), most=most)
    with ahead.running():
        for step in steps:
            for rows in step * times:
                batch = SimpleNamespace(index=rows)
                ahead.count(batch)
                assert ahead.of(batch) == tuple(rows)
    assert source.counted == len(source.asked) == len(order)
    ahead.count(SimpleNamespace(index=[7]))  # of no step, as in validation
    assert source.counted == len(order) + 1
