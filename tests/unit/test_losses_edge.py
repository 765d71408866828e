"""Losses at the edge of float32, in value and gradient against float64; thousands more are in the campaign `losses`."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from torch import Tensor

from campaigns import losses, slow_losses
from campaigns.trials import Verdict
from pkt.objectives import TokenDistribution, divergence, token_distribution
from pkt.objectives.geometry import geometry_sum
from pkt.objectives.output_cosine import dense_output_cosine_sum, output_cosine_sum
from pkt.objectives.scaling import near_one


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(states: Tensor, fast, slow, *, logits: bool = False) -> None:
    """Compare a float32 loss with a float64 one; gradients times lengths, which have no unit (logits have none)."""
    leaf, exact = states.float().requires_grad_(), states.float().double().requires_grad_()
    got, expected = fast(leaf), slow(exact)
    (gradient,), (wanted,) = torch.autograd.grad(got, leaf), torch.autograd.grad(expected, exact)
    assert float(got.detach()) == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-6)
    assert wanted.any()
    lengths_N1 = 1.0 if logits else exact.detach().norm(dim=-1, keepdim=True)
    gradient, wanted = gradient.double() * lengths_N1, wanted * lengths_N1
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()) + 2e-6)


@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e3, 6.6e4, 1e6])
@pytest.mark.parametrize("relation", ["cka", "cosine"])
@pytest.mark.parametrize("sizes", [(4, 12), (9, 4)], ids=str)
def test_geometry_at_every_norm_of_one_token_and_of_all(norm, relation, sizes):
    x, y = normal(*sizes), normal(*sizes, seed=1)
    one = torch.ones(sizes[0], 1, dtype=torch.float64)
    one[0] = min(norm, 6.6e4)  # a token that is a million times as long leaves float32 no digit of the others
    for scale in (norm, one, norm * one):
        both(
            x * scale,
            lambda h: geometry_sum(h, y.float(), torch.zeros(len(h)), relation=relation),
            lambda h: slow_losses.geometry(h, y.float().double(), [len(h)], relation),
        )


def test_geometry_of_equal_tokens_is_none():
    x = (0.1 + normal(1, 8)).float().expand(6, -1).clone().requires_grad_()
    for relation in ("cka", "cosine"):
        value = geometry_sum(1e3 * x, normal(6, 8, seed=1).float(), torch.zeros(6), relation=relation)
        (gradient,) = torch.autograd.grad(value, x)
        assert relation == "cosine" or float(value.detach()) == 1.0
        assert not gradient.any()  # what is left after centring is round-off


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("spread", [30.0, 100.0])
def test_divergences_far_apart(kind, top_k, spread):
    teacher = (spread * normal(9, 40, seed=1)).float()
    kept = token_distribution(teacher, top_k=top_k)
    both(
        spread * normal(9, 40),
        lambda z: divergence(z, kept, kind=kind).mean(),
        lambda z: slow_losses.divergence(z, teacher.double(), kind=kind, temperature=1.0, top_k=top_k),
        logits=True,
    )


def test_forward_kl_pulls_at_a_token_that_the_student_takes_for_impossible():
    teacher = token_distribution(torch.tensor([[0.0, 0.0]]), top_k=None)
    logits = torch.tensor([[0.0, -200.0]], requires_grad=True)
    value = divergence(logits, teacher).sum()
    (gradient,) = torch.autograd.grad(value, logits)
    assert float(value.detach()) == pytest.approx(100 - math.log(2), rel=1e-6)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, -0.5]]))


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
def test_zeros_of_either_side_are_no_reason_for_what_is_not_a_number(kind):
    never = -torch.inf
    p = TokenDistribution(log_probs_nK=torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]).log())
    logits = torch.tensor([[1.0, 2.0, never], [0.0, 1.0, 2.0]], requires_grad=True)
    value_n = divergence(logits, p, kind=kind)
    (gradient,) = torch.autograd.grad(value_n.sum(), logits)
    assert value_n.isfinite().all()
    assert gradient.isfinite().all()
    assert float(value_n.detach()[0]) < 1.0  # where both are zero they agree


def head(vocabulary: int = 60, width: int = 8, unread: int = 2) -> tuple[Tensor, Tensor]:
    """A head that leaves some directions unread, and the turn that these are the last columns of."""
    turn = torch.linalg.qr(normal(width, width, seed=3)).Q
    weight = normal(vocabulary, width, seed=4)
    weight[:, -unread:] = 0
    return (weight @ turn.T).float(), turn


@pytest.mark.parametrize("unread", [1.0, 1e2, 1e3])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("weights", [1e-5, 1.0])
def test_output_cosine_of_a_head_that_reads_little_of_the_state(unread, norm, weights):
    weight, turn = head()
    weight, states = weights * weight, normal(12, 8, seed=5)
    states[:, -2:] *= unread
    labels = torch.arange(12)
    both(
        norm * states @ turn.T,
        lambda h: output_cosine_sum(h, labels, weight, weight.T @ weight) / 12,
        lambda h: slow_losses.output_cosine(h @ weight.double().T, labels),
    )


def test_output_cosine_stays_a_cosine_where_the_head_reads_nothing():
    weight, turn = head()
    states = torch.zeros(50, 8, dtype=torch.float64)
    states[:, -2:] = 300 * normal(50, 2, seed=6)
    states = (states @ turn.T).float().requires_grad_()
    labels = torch.arange(50)
    for n in range(50):
        one = output_cosine_sum(states[n : n + 1], labels[n : n + 1], weight, weight.T @ weight)
        assert 0.0 <= float(one.detach()) <= 2.0
    total = output_cosine_sum(states, labels, weight, weight.T @ weight)
    assert torch.autograd.grad(total, states)[0].isfinite().all()


@pytest.mark.parametrize("norm", [1e-6, 1e6])
def test_output_cosine_from_logits_of_any_size(norm):
    weight, labels = normal(20, 8, seed=1).float(), torch.arange(6)
    both(
        norm * normal(6, 8),
        lambda h: dense_output_cosine_sum(h, labels, lambda x: x @ weight.T) / 6,
        lambda h: slow_losses.output_cosine(h @ weight.double().T, labels),
    )


def test_scaling_changes_no_digit():
    x = (normal(40, 7) * torch.logspace(-20, 20, 40, dtype=torch.float64)[:, None]).float()
    scaled = near_one(x, -1)
    largest = scaled.abs().amax(-1)
    assert ((largest >= 0.5) & (largest < 1)).all()
    assert torch.equal(torch.frexp(scaled).mantissa, torch.frexp(x).mantissa)
    assert torch.equal(near_one(torch.zeros(2, 3), -1), torch.zeros(2, 3))
    assert near_one(torch.tensor([[1.0, math.nan]]), -1).isnan().any()
    assert not near_one(torch.tensor([[1.0, math.inf]]), -1).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("edge", sorted(set(losses.EDGES)))
def test_every_loss_at_every_edge(name, edge, monkeypatch):
    monkeypatch.setattr(losses, "EDGES", (edge,))
    for seed in range(2):
        scene = losses.Scene.drawn(Random(f"{name}/{edge}/{seed}"))
        verdict, detail = losses.LOSSES[name].judge(scene)
        assert verdict is Verdict.WORKS, detail
