"""Procrustes against the polar factor of the cross-covariance, planted rotations, and its optimality."""

from __future__ import annotations

import pytest
import torch

from pkt.errors import PktError, RequestError
from pkt.semantics import HeadView, Procrustes, paired, quality_card

NOWHERE = HeadView(weight=torch.zeros(1, 1))
SIZES = [(50, 8, 5), (50, 5, 8), (50, 6, 6), (6, 20, 5), (6, 5, 20), (4, 12, 9), (4, 9, 12)]  # N, D_T, D_S
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(n, width_teacher, width_student):
    x = draw(n, width_teacher) * torch.logspace(0, -1, width_teacher, dtype=torch.float64) + 3
    return x, x @ draw(width_teacher, width_student, seed=1) + draw(n, width_student, seed=2) - 1


def fit(x, y, **fields):
    return Procrustes(**fields).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))


def centred(states):
    return states - states.mean(0)


def semi_orthogonal(width_student, width_teacher, seed):
    """Orthonormal columns if D_T <= D_S, else orthonormal rows."""
    tall = max(width_student, width_teacher), min(width_student, width_teacher)
    q = torch.linalg.qr(draw(*tall, seed=seed))[0]
    return q if width_student >= width_teacher else q.T


def assert_semi_orthogonal(weight):
    small = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    torch.testing.assert_close(small, torch.eye(len(small), dtype=small.dtype), **TOLERANCE)


def polar(cross):
    """C (C^T C)^-1/2 for a tall C of full rank, its mirror image for a wide one."""
    if cross.shape[0] < cross.shape[1]:
        return polar(cross.T).T
    values, vectors = torch.linalg.eigh(cross.T @ cross)
    return cross @ (vectors / values.sqrt()) @ vectors.T


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sizes", [size for size in SIZES if size[0] == 50 or min(size[1:]) == 5], ids=str)
def test_procrustes_is_the_polar_factor(sizes, intercept, monkeypatch):
    monkeypatch.setattr(paired, "BLOCK", 7)
    x, y = pair(*sizes)
    left, right = (centred(x), centred(y)) if intercept else (x, y)
    turn = polar(right.T @ left)
    plain = fit(x, y, scale=False, intercept=intercept)
    torch.testing.assert_close(plain.weight.double(), turn, **TOLERANCE)
    turned = (left @ turn.T).flatten()
    stretch = (turned @ right.flatten()) / (turned @ turned)  # least squares of one number
    scaled = fit(x, y, intercept=intercept)
    torch.testing.assert_close(scaled.weight.double(), stretch * turn, **TOLERANCE)
    assert scaled.info["scale"] == pytest.approx(float(stretch))
    expected = stretch * left @ turn.T + (y.mean(0) if intercept else 0)
    torch.testing.assert_close(scaled(x).double(), expected, **TOLERANCE)
    assert not scaled.normalise


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_no_semi_orthogonal_map_aligns_better(sizes):
    x, y = pair(*sizes)
    fitted = fit(x, y, scale=False)
    weight = fitted.weight.double()
    assert_semi_orthogonal(weight)
    x, y = centred(x), centred(y)
    best = float((x @ weight.T * y).sum())
    assert best == pytest.approx(float(torch.linalg.matrix_norm(y.T @ x, "nuc")), rel=1e-5)
    for seed in range(20):
        other = semi_orthogonal(*weight.shape, seed)
        assert float((x @ other.T * y).sum()) <= best
        for width, side in ((weight.shape[0], "left"), (weight.shape[1], "right")):
            skew = 0.05 * draw(width, width, seed=seed)
            step = torch.linalg.matrix_exp(skew - skew.T)
            near = step @ weight if side == "left" else weight @ step
            assert float((x @ near.T * y).sum()) <= best + 1e-6 * abs(best)


@pytest.mark.parametrize("sizes", [(50, 5, 8), (50, 6, 6)], ids=str)
def test_it_is_least_squares_where_the_student_is_not_narrower(sizes):
    x, y = pair(*sizes)
    for scale in (True, False):
        fitted = fit(x, y, scale=scale)
        least = float((fitted(x).double() - y).square().sum())
        for seed in range(20):
            other = float(fitted.info["scale"]) * semi_orthogonal(sizes[2], sizes[1], seed)
            assert least <= float((centred(x) @ other.T + y.mean(0) - y).square().sum())


@pytest.mark.parametrize("widths", [(5, 8), (6, 6)], ids=str)
def test_it_finds_a_rotation_into_a_wider_student(widths):
    turn, x = semi_orthogonal(widths[1], widths[0], 3), draw(40, widths[0])
    y = 2.5 * x @ turn.T + draw(widths[1], seed=4)
    fitted = fit(x, y)
    torch.testing.assert_close(fitted.weight.double(), 2.5 * turn, **TOLERANCE)
    assert fitted.info["scale"] == pytest.approx(2.5)
    card = quality_card(fitted, x, y)
    assert card.explained_variance == pytest.approx(1, abs=1e-6)
    assert card.condition == pytest.approx(1, abs=1e-4)


def test_it_finds_the_subspace_that_a_narrower_student_sees():
    turn = semi_orthogonal(4, 9, 3)
    y = draw(40, 4)
    fitted = fit(3 * y @ turn, y)  # the teacher's states lie in the span of 4 of its 9 directions
    torch.testing.assert_close(fitted.weight.double(), turn / 3, **TOLERANCE)


@pytest.mark.parametrize("sizes", [(1, 4, 3), (30, 6, 4)], ids=str)
def test_states_that_do_not_vary(sizes):
    x, y = torch.full(sizes[:2], 2.0), torch.full((sizes[0], sizes[2]), -1.0)
    fitted = fit(x, y)
    torch.testing.assert_close(fitted(x), y)
    assert torch.isfinite(fitted.weight).all()
    assert fitted.info["rank"] == 0
    assert_semi_orthogonal(fit(x, y, scale=False).weight.double())


def test_rank_deficient_states():
    x = draw(30, 2) @ draw(2, 8, seed=1)
    y = x @ draw(8, 5, seed=2)
    fitted = fit(x, y, scale=False)
    assert fitted.info["rank"] == 2
    assert_semi_orthogonal(fitted.weight.double())


def test_bfloat16_states_and_rotations_of_the_student():
    x, y = (side.bfloat16() for side in pair(50, 8, 5))
    half, whole = fit(x, y), fit(x.double(), y.double())
    torch.testing.assert_close(half.weight, whole.weight)
    turn = torch.linalg.qr(draw(5, 5, seed=6))[0]
    turned = fit(x.double(), y.double() @ turn.T)
    torch.testing.assert_close(turned.weight.double(), turn @ whole.weight.double(), **TOLERANCE)


def test_procrustes_refusals():
    x, y = pair(10, 4, 3)
    with pytest.raises(ValueError, match="semantics=procrustes is fitted on paired states"):
        Procrustes().fit(teacher=NOWHERE, student=NOWHERE)
    with pytest.raises(ValueError, match="10 teacher and 9 student positions"):
        fit(x, y[:9])
    with pytest.raises(RequestError, match="the align split has none"):
        fit(x[:0], y[:0])
    x[2, 1] = float("nan")
    with pytest.raises(PktError, match="NaN or infinity"):
        fit(x, y)
