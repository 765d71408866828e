"""Wide heads: an inverse in place of eigenpairs, and half of a Gram matrix, give the same basis and the same map."""

from __future__ import annotations

import pytest
import torch

from pkt.errors import PktError
from pkt.semantics import (
    Basis,
    Cosine,
    HeadView,
    LogitLstsq,
    alignment_matrix,
    basis,
    factor,
    factorise,
    gram,
    invert,
)
from pkt.semantics.factor import Factor, Inverse

RCOND = 1e-10


@pytest.fixture
def wide(monkeypatch):
    """Let heads of ten channels count as wide, in uneven panels and blocks."""
    for module in (basis, factor):
        monkeypatch.setattr(module, "WIDE", 10)
    monkeypatch.setattr(factor, "PANELS", 3)
    monkeypatch.setattr(basis, "NARROW", 37)


def head(rows: int, width: int, seed: int, steep: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return (weight * torch.logspace(0, -torch.tensor(steep).log10().item(), width)).float()


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(("steep", "close"), [(1.0, 1e-10), (100.0, 1e-8), (500.0, 1e-5)])
@pytest.mark.parametrize("sizes", [((300, 24), (280, 17)), ((300, 17), (310, 24)), ((200, 11), (200, 32))])
def test_the_map_is_that_of_eigenpairs(sizes, steep, close, monkeypatch):
    weights = [head(*size, seed, steep) for seed, size in enumerate(sizes)]
    weights[0][5] = 0.0  # an empty row has no basis vector
    found = [invert(gram(weight), RCOND) for weight in weights]
    assert all(isinstance(own, Inverse) for own in found)
    slow = [factorise(own.double().T @ own.double(), RCOND) for own in weights]
    for fast, other in zip(found, slow, strict=True):
        assert (fast.rank, fast.condition) == (other.rank, pytest.approx(other.condition, rel=1e-4))
        torch.testing.assert_close(
            fast.inverse, other.inverse, rtol=1e-6, atol=1e-6 * float(other.inverse.abs().max())
        )
    matrices = [
        alignment_matrix(*(Basis(weight_VD=w, factor=own) for w, own in zip(weights, own_side, strict=True)))
        for own_side in (found, slow)
    ]
    assert float((matrices[0] - matrices[1]).norm() / matrices[1].norm()) < close
    views = [HeadView(weight=weight) for weight in weights]
    for semantics in (Cosine(), LogitLstsq()):
        fast = semantics.fit(teacher=views[0], student=views[1])
        monkeypatch.setattr(factor, "WIDE", 1000)
        other = semantics.fit(teacher=views[0], student=views[1])
        monkeypatch.setattr(factor, "WIDE", 10)
        assert float((fast.weight - other.weight).norm() / other.weight.norm()) < max(close, 1e-6)
        assert fast.info == pytest.approx(other.info, rel=1e-4)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("fault", ["deficient", "steep", "cut"])
def test_a_head_without_a_good_inverse_has_eigenpairs(fault):
    weight = head(200, 20, 0, steep=3e4 if fault == "steep" else 30.0)
    if fault == "deficient":
        weight[:, 7] = weight[:, 3] - weight[:, 4]
    found = invert(gram(weight), 0.01 if fault == "cut" else RCOND)
    assert isinstance(found, Factor)
    assert (found.rank < 20) == (fault != "steep")


@pytest.mark.usefixtures("wide")
def test_half_of_a_gram_matrix_is_mirrored_and_empty_or_broken_heads_are_refused():
    weight, scale = head(150, 23, 1), torch.rand(23)
    scaled = weight.double() * scale.double()
    torch.testing.assert_close(gram(weight, scale_D=scale), scaled.T @ scaled)
    with pytest.raises(PktError, match="spans no semantic basis"):
        invert(gram(torch.zeros(30, 12)), RCOND)
    weight[3, 3] = torch.nan
    with pytest.raises(PktError, match="NaN or infinity"):
        gram(weight)


def test_narrow_heads_have_eigenpairs():
    assert isinstance(invert(gram(head(60, 12, 0)), RCOND), Factor)


def test_where_lanczos_finds_nothing_eigenpairs_are_taken(monkeypatch, wide):
    monkeypatch.setattr(factor, "_largest", lambda _: None)
    assert isinstance(invert(gram(head(60, 12, 0)), RCOND), Factor)
