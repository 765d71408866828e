"""Weights of terms that fall while a student trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from test_training_loop import Quadratic, trainer  # the loop's own toy
from torch import nn

from pkt.objectives import Cosine, CrossEntropy, Objective
from pkt.training.schedule import elapsed
from terms import objective


@pytest.mark.parametrize(
    ("decay", "to", "expected"),
    [
        ("constant", 0.0, [3.0, 3.0, 3.0]),
        ("linear", 0.0, [3.0, 1.5, 0.0]),
        ("linear", 0.2, [3.0, 1.8, 0.6]),
        ("cosine", 0.0, [3.0, 1.5, 0.0]),
        ("cosine", 0.5, [3.0, 2.25, 1.5]),
        ("linear", 1.0, [3.0, 3.0, 3.0]),
    ],
)
def test_the_weight_at_the_first_the_middle_and_the_last_step(decay, to, expected):
    term = Cosine(weight=3.0, decay=decay, decay_to=to)
    steps = [elapsed(step, 9) for step in (1, 5, 9)]
    assert [term.weight_at(progress) for progress in steps] == pytest.approx(expected)


def test_a_cosine_decay_is_slow_at_both_ends():
    term = Cosine(decay="cosine")
    assert term.weight_at(0.25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert term.weight_at(0.1) > 1 - 0.1
    assert term.weight_at(0.9) < 1 - 0.9


def test_a_training_of_one_step_has_the_whole_weight():
    assert elapsed(1, 1) == 0.0


@pytest.mark.parametrize("settings", [{"decay_to": -0.1}, {"decay_to": 1.5}])
def test_what_is_left_is_a_share(settings):
    with pytest.raises(ValueError, match="decay_to is a number"):
        Cosine(**settings)


def test_only_weights_that_fall_are_reported():
    found = objective(cosine={"weight": 2.0, "decay": "linear"}, ce={"weight": 0.5})
    assert found.scheduled(0.5) == {"layer": 1.0}
    assert found.weights({}, 0.5) == {"layer": 1.0, "ce": 0.5}
    assert found.weights({}) == {"layer": 2.0, "ce": 0.5}


def test_balanced_terms_are_compared_at_the_weights_of_the_step():
    terms = {
        "cosine": {"weight": 4.0, "decay": "linear"},
        "ce": {"weight": 1.0, "decay": "linear", "decay_to": 0.5},
    }
    values = {"layer": torch.tensor(8.0), "ce": torch.tensor(2.0)}
    found = objective("auto", **terms).weights(values, 0.5)
    assert found["ce"] == pytest.approx(0.75)
    assert found["layer"] * 8.0 == pytest.approx(
        2.0 * (0.75 * 2.0)
    )  # its own weight times the output terms' size


def test_a_term_of_somebody_elses_has_a_constant_weight():
    @dataclass(frozen=True, kw_only=True)
    class Foreign:
        weight: float = 2.0
        needs = ()

        def count(self, view):
            return view.count

        def modules(self, sizes):
            return None

        def __call__(self, view):
            raise AssertionError

    found = Objective(terms={"foreign": Foreign(), "ce": CrossEntropy(decay="linear")})
    assert found.weights({}, 1.0) == {"foreign": 2.0, "ce": 0.0}


class Weighted(Quadratic):
    """The toy with a weight that falls to zero."""

    share = 1.0

    def begin_step(self, progress: float) -> dict[str, float]:
        self.share = 1.0 - progress
        return {"weight_output": self.share}

    def weights(self, values):
        return {"loss_output": self.share}


@pytest.mark.parametrize("micro", [1, 3, 8])
def test_the_loop_asks_for_the_weights_of_each_step(micro):
    def run(**optim):
        weight = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        loop = trainer(weight, epochs=2, **optim)
        loop.loss = Weighted(weight)
        loop.begin_step = loop.loss.begin_step
        seen = []
        loop.listen = lambda _step, metrics: seen.append(metrics)
        loop.fit()
        return weight.detach(), seen

    (whole, metrics), (parts, _) = run(), run(micro_batch_size=micro)
    assert [step["weight_output"] for step in metrics] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    assert metrics[-1]["loss"] == 0.0
    assert metrics[-2]["loss"] == pytest.approx(0.2 * metrics[-2]["loss_output"])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)


def test_an_epoch_ends_after_its_validation_and_the_last_one_ends_nothing():
    events = []
    weight = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    loop = trainer(weight, epochs=3, validate=lambda: events.append("validated") or {"cross_entropy": 1.0})
    loop.finish_epoch = lambda: events.append("ended") or {"fit": 0.5}
    loop.listen = lambda step, metrics: events.append((step, metrics["fit"])) if "fit" in metrics else None
    loop.fit()
    assert events == ["validated", "ended", (3, 0.5), "validated", "ended", (6, 0.5), "validated"]
