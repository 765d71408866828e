"""Positions with massive activations: told apart by one rule, and without weight in fits, cards and comparisons."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pkt.methods.layer_results import LayerAlignment
from pkt.methods.layerwise import length_ratio
from pkt.semantics import AlignmentMap, Cosine, HeadView, Procrustes, Ridge, ordinary, quality_card
from pkt.semantics.paired import moments
from pkt.semantics.ridge import ALPHAS, leave_one_out
from pkt.training.states import RowStates

NOWHERE = HeadView(weight=torch.zeros(1, 1))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(count: int = 200, width: int = 12, other: int = 7) -> tuple[Tensor, Tensor]:
    x = draw(count, width) * torch.logspace(0, -1.5, width, dtype=torch.float64) + 0.3
    return x, x @ draw(width, other, seed=1) + 0.3 * draw(count, other, seed=2)


def spoiled(x: Tensor, y: Tensor, where: dict[int, int], times: float) -> tuple[Tensor, Tensor]:
    """Make a state of side 0 or 1 at some positions long."""
    sides = [x.clone(), y.clone()]
    for position, side in where.items():
        sides[side][position] = (
            times
            * sides[side].norm(dim=-1).median()
            * torch.nn.functional.normalize(draw(sides[side].shape[1], seed=position), dim=0)
        )
    return sides[0], sides[1]


PLACES = {0: 0, 50: 1, 199: 0}
KEPT = [i for i in range(200) if i not in PLACES]


@pytest.mark.parametrize("times", [20.0, 110.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_rule(times, dtype):
    states = spoiled(*pair(), PLACES, times)
    kept_N = ordinary(*(side.to(dtype) for side in states))
    assert kept_N.nonzero()[:, 0].tolist() == KEPT
    assert ordinary(*states, beyond=None).all()
    assert ordinary(*states, beyond=2 * times).all()


def test_what_the_rule_leaves_alone():
    x, y = pair()
    assert ordinary(x, y).all()
    assert ordinary(x * 1e6, y * 1e-6).all()
    assert ordinary(torch.zeros(5, 3), y[:5]).all()  # more than half of the states are zero
    assert ordinary(torch.tensor([[1.0], [1.0], [math.nan]]), torch.ones(3, 1)).all()  # for others to find
    assert ordinary(torch.tensor([[1.0], [1.0], [math.inf]]), torch.ones(3, 1)).all()
    assert ordinary(x[:1], y[:1]).tolist() == [True]
    assert ordinary(x[:0], y[:0]).tolist() == []


@pytest.mark.parametrize(
    "strategy", [Ridge(), Ridge(alpha=None), Ridge(intercept=False), Procrustes()], ids=str
)
def test_a_map_is_that_of_the_ordinary_positions(strategy):
    x, y = pair()
    clean = strategy.fit(teacher=NOWHERE, student=NOWHERE, states=(x[KEPT], y[KEPT]))
    long = spoiled(x, y, PLACES, 100.0)
    got = strategy.fit(teacher=NOWHERE, student=NOWHERE, states=long)
    assert torch.equal(got.weight, clean.weight)
    assert got.info | {"left_out": 0} == clean.info
    assert (got.info["positions"], got.info["left_out"]) == (197, 3)
    card, expected = quality_card(got, *long), quality_card(clean, x[KEPT], y[KEPT])
    assert (card.left_out, card.positions) == (3, 197)
    assert card.explained_variance == expected.explained_variance
    assert card.cosine == expected.cosine


def test_alpha_is_what_it_says_of_the_positions_that_are_fitted():
    x, y = spoiled(*pair(), {7: 0}, 100.0)
    fitted = Ridge(alpha=1e-3).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    rest = torch.cat([x[:7], x[8:]])
    covariance = (rest - rest.mean(0)).T @ (rest - rest.mean(0))
    assert fitted.info["penalty"] == pytest.approx(1e-3 * float(torch.linalg.eigvalsh(covariance).mean()))
    every = Ridge(alpha=1e-3, massive=None).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    assert every.info["penalty"] > 20 * fitted.info["penalty"]


def test_lengths_of_a_map_without_lengths_are_those_of_ordinary_positions():
    x, y = pair()
    map_ = AlignmentMap(weight=draw(7, 12, seed=3).float(), normalise=True)

    def rows(side: Tensor) -> RowStates:
        return RowStates(flat_ND=side.float(), offsets_R1=torch.tensor([0, len(side)]))

    clean = length_ratio(map_, rows(x[KEPT]), rows(y[KEPT]))
    assert length_ratio(map_, *map(rows, spoiled(x, y, PLACES, 500.0))) == clean


def test_maps_without_states_are_judged_by_the_same_positions():
    heads = [HeadView(weight=draw(40, width, seed=width).float()) for width in (12, 7)]
    map_ = Cosine().fit(teacher=heads[0], student=heads[1])
    assert quality_card(map_, *spoiled(*pair(), PLACES, 90.0)).left_out == 3


def test_it_is_said_how_many_were_left_out():
    card = {"cosine": 0.5, "positions": 197, "left_out": 3}
    (note,) = LayerAlignment(quality={4: card, 5: {**card, "left_out": 0}}).warnings()
    assert "3 of 200 positions" in note
    assert "student layers 4)" in note
    assert LayerAlignment(quality={4: {**card, "left_out": 0}}).warnings() == []


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sizes", [(30, 6, 4), (9, 12, 3), (2, 3, 2)], ids=str)
def test_leave_one_out_is_what_refitting_gives(sizes, intercept):
    x, y = pair(*sizes)
    found = moments((x, y), "ridge", centred=intercept)
    penalties = [alpha * float(found.xx_DD.diagonal().mean()) for alpha in (1e-3, 0.1, 10.0)]
    got = leave_one_out(found, penalties)
    for penalty, error in zip(penalties, got, strict=True):
        total = 0.0
        for i in range(len(x)):
            rest = [j for j in range(len(x)) if j != i]
            mean_x, mean_y = (s[rest].mean(0) if intercept else torch.zeros(s.shape[1]) for s in (x, y))
            a, b = x[rest] - mean_x, y[rest] - mean_y
            weight = torch.linalg.solve(a.T @ a + penalty * torch.eye(a.shape[1], dtype=a.dtype), a.T @ b)
            total += float((y[i] - mean_y - (x[i] - mean_x) @ weight).square().sum())
        assert float(error) == pytest.approx(total / len(x), rel=1e-6)


def test_the_chosen_alpha_predicts_rows_that_it_never_saw():
    x, y = pair(20, 12)
    y = y + 2.0 * draw(20, 7, seed=8)  # so noisy that the default penalty overfits
    fresh = pair(2000, 12)
    fresh = fresh[0][1000:], fresh[1][1000:]
    maps = {a: Ridge(alpha=a).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y)) for a in (*ALPHAS, None)}
    errors = {a: float((map_(fresh[0]) - fresh[1]).square().mean()) for a, map_ in maps.items()}
    chosen = maps[None].info["alpha"]
    assert torch.equal(maps[None].weight, maps[chosen].weight)
    assert 1e-2 <= chosen < ALPHAS[-1]
    assert errors[None] < 0.7 * errors[1e-4]


def test_alpha_where_there_is_nothing_to_leave_out():
    x, y = pair(1, 4, 3)
    one = Ridge(alpha=None).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    torch.testing.assert_close(one(x), y.float())  # nothing varies: the mean
    two = torch.cat([x, x]), torch.cat([y, y + 1])
    same = Ridge(alpha=None).fit(teacher=NOWHERE, student=NOWHERE, states=two)
    torch.testing.assert_close(same(x), (y + 0.5).float())
    alone = Ridge(alpha=None, intercept=False)
    apart = torch.tensor([[1e-3, 0.0], [0.0, 1.0]], dtype=torch.float64), y[:, :2].repeat(2, 1)
    assert alone.fit(teacher=NOWHERE, student=NOWHERE, states=apart).info["alpha"] > ALPHAS[0]


def test_penalties_that_leave_a_position_to_itself_are_not_chosen():
    found = moments((torch.eye(3, dtype=torch.float64), draw(3, 2)), "ridge", centred=False)
    errors = leave_one_out(found, [1e-12, 1.0])
    assert errors[0] == math.inf
    assert errors[1] < math.inf
