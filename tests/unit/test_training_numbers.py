"""Numbers that are not finite in training: never the best, never kept, and one error that names the term."""

from __future__ import annotations

import math

import pytest
import torch
from test_training_loop import trainer
from torch import nn

from pkt.errors import PktError
from pkt.training.snapshot import load_snapshot

F64 = torch.float64


def fit(values: list[float], **optim: object) -> tuple[int | None, torch.Tensor, list[torch.Tensor]]:
    """Train four epochs with these validation cross-entropies; the best step, the weights, and those after each epoch."""
    weight, seen = nn.Parameter(torch.zeros(5, dtype=F64)), []
    left = iter(values)

    def validate() -> dict[str, float]:
        seen.append(weight.detach().clone())
        return {"cross_entropy": next(left)}

    history = trainer(weight, validate=validate, **optim).fit()
    return history.best_step, weight.detach(), seen


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([math.nan, 2.0, 1.0, math.nan], 2),
        ([math.nan, math.nan, math.nan, 5.0], 3),
        ([1.0, math.nan, 0.5, math.nan], 2),
        ([math.inf, 3.0, math.nan, -math.inf], 1),
        ([3.0, math.nan, math.nan, math.nan], 0),
    ],
)
def test_what_is_not_a_number_is_never_the_best(values, best):
    step, weight, seen = fit(values, keep="best")
    assert step == 3 * (best + 1)
    assert torch.equal(weight, seen[best])


def test_nothing_to_choose_from_is_one_error():
    with pytest.raises(PktError, match=r"no validation .*finite cross-entropy.*keep=best"):
        fit([math.nan, math.inf, math.nan, math.nan], keep="best")
    assert fit([math.nan] * 4)[0] is None  # nothing is chosen with keep=last


@pytest.mark.parametrize("saved", [True, False])
def test_weights_that_are_not_finite_are_neither_kept_nor_saved(tmp_path, saved):
    weight, steps = nn.Parameter(torch.zeros(5, dtype=F64)), []

    def spoil_the_last() -> None:
        steps.append(1)
        if len(steps) == 3:
            with torch.no_grad():
                weight[2] = math.inf

    spoiled = trainer(weight, tmp=tmp_path if saved else None, epochs=1)
    spoiled.finish_step = spoil_the_last
    with pytest.raises(PktError, match=r"weights of weight are NaN or infinite after optimiser step 3"):
        spoiled.fit()
    if saved:
        snapshot = load_snapshot(tmp_path)
        assert snapshot is not None
        assert snapshot.state["step"] == 2
        assert all(value.isfinite().all() for value in snapshot.tensors.values())
