"""Windows of largest sensitivity against brute force over every place."""

from __future__ import annotations

import pytest
import torch

from pkt.attribution.windows import best_window, cut
from textbook.weights import brute_force

SHAPES = [
    ((7, 9), (3, 4)),
    ((5, 5), (5, 5)),
    ((8, 3), (2, 3)),
    ((4, 6), (4, 1)),
    ((1, 6), (1, 2)),
    ((16, 24), (8, 16)),
]


def scores(shape, seed=0, *, whole=False):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=generator)
    return (values * 3).floor() if whole else values


@pytest.mark.parametrize(("size", "shape"), SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_window_is_that_of_brute_force(size, shape, seed):
    score = scores(size, seed)
    assert best_window(score, shape) == brute_force(score, shape)


@pytest.mark.parametrize(("size", "shape"), SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_first_in_row_major_order_among_equals(size, shape, seed):
    score = scores(size, seed, whole=True)  # small whole numbers: sums are exact and often equal
    assert best_window(score, shape) == brute_force(score, shape)
    assert best_window(torch.ones(size), shape) == (0, 0)


def test_a_small_window_beside_a_large_sum():
    """Prefix sums reach 1e9; differences have to resolve single weights."""
    score = torch.full((2000, 500), 1000.0)
    score[1500, 400] += 1e-2
    assert best_window(score, (1, 1)) == (1500, 400)


def test_cut_reports_what_it_catches():
    score = scores((7, 9))
    chosen = cut(score, (3, 4))
    row, column = brute_force(score, (3, 4))
    assert chosen.rows_n.tolist() == [row, row + 1, row + 2]
    assert chosen.columns_m.tolist() == list(range(column, column + 4))
    kept = score[row : row + 3, column : column + 4]
    torch.testing.assert_close(chosen.of(score), kept, rtol=0, atol=0)
    assert chosen.caught == pytest.approx(kept.double().sum().item())
    assert chosen.total == pytest.approx(score.double().sum().item())


def test_rows_then_columns_in_order():
    score = torch.tensor([[1.0, 0.0, 9.0], [0.0, 0.0, 1.0], [5.0, 6.0, 0.0], [5.0, 6.0, 0.0]])
    chosen = cut(score, (2, 2), structure="rows_columns")
    assert chosen.rows_n.tolist() == [2, 3]  # sums 10, 1, 11, 11
    assert chosen.columns_m.tolist() == [0, 1]  # within the kept rows
    assert cut(torch.ones(4, 3), (2, 2), structure="rows_columns").rows_n.tolist() == [0, 1]


def test_rows_and_columns_are_the_largest():
    score = scores((16, 24))
    chosen = cut(score, (8, 16), structure="rows_columns")
    rows = sorted(range(16), key=lambda r: (-score[r].double().sum().item(), r))[:8]
    assert chosen.rows_n.tolist() == sorted(rows)
    columns = sorted(range(24), key=lambda c: (-score[sorted(rows)][:, c].double().sum().item(), c))[:16]
    assert chosen.columns_m.tolist() == sorted(columns)


def test_random_window_is_contiguous_and_seeded():
    score = scores((16, 24))
    places = set()
    for seed in range(40):
        chosen = cut(score, (8, 16), structure="random", seed=seed)
        again = cut(score, (8, 16), structure="random", seed=seed)
        assert torch.equal(chosen.rows_n, again.rows_n)
        assert torch.equal(chosen.columns_m, again.columns_m)
        first, last = int(chosen.rows_n[0]), int(chosen.rows_n[-1])
        assert (last - first, chosen.rows_n.numel()) == (7, 8)
        assert int(chosen.columns_m[-1]) < 24
        places.add((first, int(chosen.columns_m[0])))
    assert len(places) > 20


@pytest.mark.parametrize("shape", [(8, 2), (2, 10), (0, 1)])
def test_what_does_not_fit(shape):
    with pytest.raises(ValueError, match="does not fit"):
        best_window(torch.ones(7, 9), shape)
    with pytest.raises(ValueError, match="does not fit"):
        cut(torch.ones(7, 9), shape)


def test_unknown_structure():
    with pytest.raises(ValueError, match="window, rows_columns, random"):
        cut(torch.ones(7, 9), (2, 2), structure="block")
