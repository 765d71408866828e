"""Ridge against least squares on an augmented system; the quality card against its definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pkt.errors import PktError, RequestError
from pkt.semantics import AlignmentMap, HeadView, Ridge, paired, quality, quality_card, readout_kl

NOWHERE = HeadView(weight=torch.zeros(1, 1))
SIZES = [(50, 8, 5), (50, 5, 8), (6, 20, 5), (6, 5, 20), (1, 4, 3)]  # N, D_T, D_S


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(n, width_teacher, width_student):
    x = draw(n, width_teacher) * torch.logspace(0, -2, width_teacher, dtype=torch.float64) + 3
    y = x @ draw(width_teacher, width_student, seed=1) + 0.1 * draw(n, width_student, seed=2) - 1
    return x, y


def textbook_ridge(x, y, alpha, intercept):
    """Least squares of minimal norm with sqrt(lam) I appended to the rows."""
    mean_x, mean_y = (side.mean(0) if intercept else torch.zeros(side.shape[1]) for side in (x, y))
    x, y = x - mean_x, y - mean_y
    root = (alpha * x.square().sum() / x.shape[1]).sqrt()
    rows = torch.cat([x, root * torch.eye(x.shape[1], dtype=x.dtype)])
    right = torch.cat([y, torch.zeros(x.shape[1], y.shape[1], dtype=y.dtype)])
    solution = torch.linalg.pinv(rows, rtol=1e-8) @ right if rows.any() else torch.zeros_like(x.T @ y)
    return lambda states: (states - mean_x) @ solution + mean_y


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_ridge_equals_least_squares_with_a_penalty(sizes, alpha, intercept, monkeypatch):
    monkeypatch.setattr(paired, "BLOCK", 7)
    x, y = pair(*sizes)
    fitted = Ridge(alpha=alpha, intercept=intercept).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    states = torch.cat([x, pair(9, *sizes[1:])[0]])
    expected = textbook_ridge(x, y, alpha, intercept)(states).float()
    torch.testing.assert_close(fitted(states), expected, rtol=1e-4, atol=1e-4)
    assert not fitted.normalise
    assert fitted.info["positions"] == sizes[0]


def test_alpha_has_no_unit():
    x, y = pair(50, 8, 5)
    plain = Ridge(alpha=0.1).fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    scaled = Ridge(alpha=0.1).fit(teacher=NOWHERE, student=NOWHERE, states=(100 * x, y))
    torch.testing.assert_close(scaled(100 * x), plain(x))


def test_ridge_finds_a_linear_relation():
    x = draw(60, 6)
    truth, offset = draw(6, 9, seed=1), draw(9, seed=2)
    fitted = Ridge(alpha=0.0).fit(teacher=NOWHERE, student=NOWHERE, states=(x, x @ truth + offset))
    torch.testing.assert_close(fitted.weight, truth.T.float())
    card = quality_card(fitted, x, x @ truth + offset)
    assert card.cosine == pytest.approx(1, abs=1e-6)
    assert card.explained_variance == pytest.approx(1, abs=1e-6)


def test_ridge_of_bfloat16_states():
    x, y = (side.bfloat16() for side in pair(50, 8, 5))
    half = Ridge().fit(teacher=NOWHERE, student=NOWHERE, states=(x, y))
    whole = Ridge().fit(teacher=NOWHERE, student=NOWHERE, states=(x.double(), y.double()))
    torch.testing.assert_close(half.weight, whole.weight)
    assert half.weight.dtype == torch.float32


def test_penalty_below_round_off_still_solves():
    x = draw(20, 1).repeat(1, 6)  # rank 1
    fitted = Ridge(alpha=1e-18).fit(teacher=NOWHERE, student=NOWHERE, states=(x, x[:, :2]))
    torch.testing.assert_close(fitted(x), x[:, :2].float(), rtol=1e-4, atol=1e-4)


def test_ridge_refusals():
    x, y = pair(10, 4, 3)
    with pytest.raises(ValueError, match="give states"):
        Ridge().fit(teacher=NOWHERE, student=NOWHERE)
    with pytest.raises(ValueError, match="10 teacher and 9 student positions"):
        Ridge().fit(teacher=NOWHERE, student=NOWHERE, states=(x, y[:9]))
    with pytest.raises(RequestError, match="the align split has none"):
        Ridge().fit(teacher=NOWHERE, student=NOWHERE, states=(x[:0], y[:0]))
    for side in (0, 1):
        states = [x.clone(), y.clone()]
        states[side][2, 1] = float("inf")
        with pytest.raises(PktError, match="NaN or infinity"):
            Ridge().fit(teacher=NOWHERE, student=NOWHERE, states=tuple(states))
    for alpha in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="alpha is a number from 0"):
            Ridge(alpha=alpha)
    with pytest.raises(ValueError, match="rcond is a number below 1"):
        Ridge(rcond=1.0)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("sizes", SIZES[:4], ids=str)
def test_quality_card_equals_its_definition(sizes, normalise, monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", 4)
    x, h = pair(*sizes)
    alignment = AlignmentMap(weight=draw(sizes[2], sizes[1], seed=4).float(), normalise=normalise)
    card, y = quality_card(alignment, x, h), alignment(x).double()
    y_c, h_c = y - y.mean(0), h - h.mean(0)
    assert card.cosine == pytest.approx(float(functional.cosine_similarity(y, h).mean()), abs=1e-6)
    assert card.cosine_centred == pytest.approx(
        float(functional.cosine_similarity(y_c, h_c).mean()), abs=1e-6
    )
    if normalise:  # R^2 of the least-squares fit h ~ scale * y + offset, signed
        scale = (y_c * h_c).sum() / y_c.square().sum()
        share = 1 - (h_c - scale * y_c).square().sum() / h_c.square().sum()
        share = share * torch.sign(scale)
    else:
        share = 1 - (h - y).square().sum() / h_c.square().sum()
    assert card.explained_variance == pytest.approx(float(share), rel=1e-4, abs=1e-6)
    singular = torch.linalg.svdvals(alignment.weight.double())
    assert card.rank == min(sizes[1:])
    assert card.condition == pytest.approx(float(singular[0] / singular[-1]), rel=1e-4)
    assert card.positions == sizes[0]


def test_quality_card_of_a_deficient_map():
    weight = draw(5, 2) @ draw(2, 8, seed=1)
    card = quality_card(AlignmentMap(weight=weight.float()), *pair(20, 8, 5))
    singular = torch.linalg.svdvals(weight)
    assert card.rank == 2
    assert card.condition == pytest.approx(float(singular[0] / singular[1]), rel=1e-4)


@pytest.mark.parametrize("normalise", [True, False])
def test_quality_card_of_one_position_and_of_a_zero_map(normalise):
    x, h = pair(1, 8, 5)
    for weight in (draw(5, 8).float(), torch.zeros(5, 8)):
        card = quality_card(AlignmentMap(weight=weight, normalise=normalise), x, h)
        assert card.explained_variance == 0.0
        assert all(value == value for value in vars(card).values())  # no NaN
        assert card.readout_kl is None
    assert (card.rank, card.condition) == (0, 0.0)


def test_quality_card_refusals():
    alignment = AlignmentMap(weight=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="2 teacher and 1 student"):
        quality_card(alignment, torch.zeros(2, 4), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="paired states"):
        quality_card(alignment, torch.zeros(0, 4), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="paired states"):
        readout_kl(torch.zeros(0, 4), torch.zeros(0, 4), lambda h: h)


def test_readout_kl(monkeypatch):
    monkeypatch.setattr(quality, "CHUNK", 4)
    head, h, y = draw(11, 4), draw(9, 4, seed=1), draw(9, 4, seed=2)
    p, q = (torch.softmax(side @ head.T, -1) for side in (h, y))
    expected = float((p * (p / q).log()).sum(-1).mean())
    got = readout_kl(h.float(), y.float(), lambda side: side @ head.T.float())
    assert got == pytest.approx(expected, rel=1e-5)
    assert readout_kl(h, h, lambda side: side @ head.T) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("normalise", [True, False])
def test_quality_card_reads_states_out(normalise, monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", 4)
    x, h = pair(10, 8, 5)
    alignment = AlignmentMap(weight=draw(5, 8, seed=4).float(), normalise=normalise)
    head = draw(11, 5, seed=5).float()

    def read_out(states):
        assert states.dtype == torch.float32
        return states @ head.T

    y = alignment(x)
    if normalise:  # a direction is read out at the length of the student's states
        y = y * (h.norm(dim=-1).mean() / y.norm(dim=-1).mean())
    expected = readout_kl(h.float(), y.float(), read_out)
    assert quality_card(alignment, x, h, read_out=read_out).readout_kl == pytest.approx(expected, rel=1e-4)
    perfect = AlignmentMap(weight=torch.eye(5))
    assert quality_card(perfect, h, h, read_out=read_out).readout_kl == pytest.approx(0, abs=1e-6)
    zero = AlignmentMap(weight=torch.zeros(5, 8), normalise=normalise)
    uniform = quality_card(zero, x, h, read_out=read_out).readout_kl
    assert uniform == pytest.approx(float(readout_kl(h.float(), 0 * h.float(), read_out)), rel=1e-5)


def test_the_read_out_looks_at_evenly_spread_positions(monkeypatch):
    monkeypatch.setattr(quality, "READ", 4)
    states = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    other = states + 0.1 * torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    seen: list[int] = []

    def read_out(h: torch.Tensor) -> torch.Tensor:
        seen.append(len(h))
        return h @ torch.eye(3)

    same = AlignmentMap(weight=torch.eye(3))
    card = quality_card(same, other, states, read_out=read_out)
    chosen = [0, 2, 5, 7]
    assert seen == [4, 4]
    assert card.readout_kl == pytest.approx(readout_kl(states[chosen], other[chosen], lambda h: h), rel=1e-5)
    assert card.positions == 10
