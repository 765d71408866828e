"""Truncated SVD and the two ways to split it."""

from __future__ import annotations

import pytest
import torch

from pkt.training import lora_start
from pkt.training.lora_start import pissa_factors, seeking_factors, truncated_svd

SHAPES = [(24, 16), (16, 24), (40, 40), (16, 64)]


def matrix(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def best_approximation(weight, rank):
    U, s, Vt = torch.linalg.svd(weight.double(), full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [16.0, 8.0])
@pytest.mark.parametrize("factors", [seeking_factors, pissa_factors])
def test_scaled_product_is_the_truncated_matrix(shape, alpha, factors):
    weight, rank = matrix(shape), 8
    A, B = factors(weight, rank, alpha)
    assert A.dtype == B.dtype == torch.float32
    product = alpha / rank * (B.double() @ A.double())
    torch.testing.assert_close(product, best_approximation(weight, rank), atol=1e-5, rtol=1e-5)


def test_seeking_puts_the_spectrum_on_b_and_pissa_splits_it():
    weight = matrix((24, 16))
    singular = torch.linalg.svdvals(weight)[:8]
    A, B = seeking_factors(weight, 8, 16.0)
    torch.testing.assert_close(A @ A.T, torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(B.norm(dim=0), singular / 2, atol=1e-5, rtol=1e-5)
    A, B = pissa_factors(weight, 8, 16.0)
    torch.testing.assert_close(A.norm(dim=1), (singular / 2).sqrt(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(B.norm(dim=0), (singular / 2).sqrt(), atol=1e-5, rtol=1e-5)


def test_signs_do_not_depend_on_the_solver():
    weight = matrix((24, 16))
    U, _s, Vt = truncated_svd(weight, 8)
    peaks = Vt.gather(1, Vt.abs().argmax(1, keepdim=True))
    assert (peaks > 0).all()
    turned = truncated_svd(-weight, 8)  # the same V, the opposite U
    torch.testing.assert_close(turned[2], Vt, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[0], -U, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(96, 160), (160, 96)])
def test_randomised_svd_is_close_and_repeats(shape, monkeypatch):
    weight = matrix(shape)  # a flat spectrum: the hard case
    exact = truncated_svd(weight, 8)
    monkeypatch.setattr(lora_start, "EXACT_UP_TO", 32)
    found, again = truncated_svd(weight, 8), truncated_svd(weight, 8)
    for one, two in zip(found, again, strict=True):
        assert torch.equal(one, two)
    assert float(found[1].square().sum() / exact[1].square().sum()) > 0.995
    torch.testing.assert_close(found[0].T @ found[0], torch.eye(8), atol=1e-5, rtol=0)
    steep = weight @ torch.diag(0.7 ** torch.arange(shape[1], dtype=torch.float32))
    monkeypatch.setattr(lora_start, "EXACT_UP_TO", 1024)
    exact = truncated_svd(steep, 8)
    monkeypatch.setattr(lora_start, "EXACT_UP_TO", 32)
    for one, two in zip(truncated_svd(steep, 8), exact, strict=True):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)


def test_gaussian_control_has_the_spectrum_and_other_directions():
    weight = matrix((24, 16))
    plain, gaussian = (seeking_factors(weight, 8, 16.0, spectrum=name) for name in ("teacher", "gaussian"))
    for A, B in (plain, gaussian):
        torch.testing.assert_close(
            torch.linalg.svdvals(B @ A)[:8], torch.linalg.svdvals(weight)[:8] / 2, atol=1e-4, rtol=1e-4
        )
    overlap = (plain[0] @ gaussian[0].T).square().sum() / 8
    assert 0.2 < float(overlap) < 0.8  # random 8-dimensional subspaces of 16 dimensions share half
    assert not torch.equal(gaussian[0], seeking_factors(weight, 8, 16.0, spectrum="gaussian", seed=1)[0])


def test_bfloat16_and_low_rank_matrices():
    A, B = seeking_factors(matrix((24, 16)).bfloat16(), 4, 4.0)
    assert torch.isfinite(A).all()
    assert B.dtype == torch.float32
    zero_A, zero_B = seeking_factors(torch.zeros(24, 16), 4, 4.0)
    assert torch.isfinite(zero_A).all()
    assert not zero_B.any()


@pytest.mark.parametrize("rank", [0, 17])
def test_rank_that_a_matrix_cannot_have(rank):
    with pytest.raises(ValueError, match="ranks from 1 to 16"):
        truncated_svd(matrix((24, 16)), rank)
