"""Fisher and geometry terms against what they stand for, and against slow, obvious forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pkt import pipeline
from pkt.config import OptimConfig
from pkt.errors import RequestError
from pkt.objectives import CrossEntropy, Fisher, Geometry, MeanSquare, Objective
from pkt.objectives import chunks as chunked
from pkt.objectives.geometry import geometry_sum
from terms import mean_of, view_of


def fisher_distance(states: Tensor, targets: Tensor, head: Head, *, top_k: int | None = 64) -> Tensor:
    return mean_of(Fisher(top_k=top_k), states, targets, head=head)


def geometry_distance(states: Tensor, targets: Tensor, sequence: Tensor, relation: str = "cka") -> Tensor:
    view = view_of(states, targets, sequence=sequence)
    sums = Geometry(relation=relation)(view)
    return (sums.total / max(sums.count, 1)).mean()


def mean_square(states: Tensor, targets: Tensor) -> Tensor:
    return mean_of(MeanSquare(), states, targets)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Head:
    """A linear read-out in the dtype that it is given."""

    def __init__(self, vocabulary: int = 40, width: int = 12) -> None:
        self.weight = normal(vocabulary, width, seed=7)

    def __call__(self, states: Tensor) -> Tensor:
        return states @ self.weight.to(states.dtype).T

    lens = __call__


def kl(target: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)), mean over positions."""
    return functional.kl_div(
        logits.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
    )


def dense_fisher(states: Tensor, targets: Tensor, head: Head) -> Tensor:
    """1/2 (z - z*)^T (diag p* - p* p*^T) (z - z*), position by position."""
    terms = []
    for h, target in zip(states, targets, strict=True):
        difference, p = head(h) - head(target), head(target).softmax(-1)
        terms.append(0.5 * difference @ (torch.diag(p) - torch.outer(p, p)) @ difference)
    return torch.stack(terms).mean()


def test_fisher_is_the_quadratic_form_in_value_and_gradient():
    head, targets = Head(), normal(9, 12, seed=1).float()
    fast, slow = (normal(9, 12).float().requires_grad_(True) for _ in range(2))
    value, expected = fisher_distance(fast, targets, head, top_k=None), dense_fisher(slow, targets, head)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    value.backward()
    expected.backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-4, atol=1e-6)


def test_fisher_is_the_second_order_expansion_of_the_kl():
    head, targets, step = Head(), normal(6, 12, seed=1), normal(6, 12, seed=2)
    errors = []
    for size in (1e-1, 1e-2):
        states = targets + size * step
        exact = float(kl(head(targets), head(states)))
        # the term is float32: compare its float64 twin, and the twin with the term
        expansion = float(dense_fisher(states, targets, head))
        errors.append(abs(expansion - exact) / size**2)
        got = float(fisher_distance(states.float(), targets.float(), head, top_k=None))
        assert got == pytest.approx(expansion, rel=2e-2)
    assert errors[1] < 0.2 * errors[0], "the remainder is of third order, so it vanishes against size^2"


def test_top_k_fisher_grows_to_the_whole():
    head, states, targets = Head(), normal(9, 12).float(), normal(9, 12, seed=1).float()
    whole = float(fisher_distance(states, targets, head, top_k=None))
    values = [float(fisher_distance(states, targets, head, top_k=k)) for k in (2, 10, 30, 39, 40, 99)]
    assert values[-1] == values[-2] == whole
    errors = [abs(value - whole) for value in values]
    assert errors[0] > errors[2] > errors[3]
    assert errors[3] == pytest.approx(0.0, abs=1e-5 * whole)  # one token in the tail bucket: nothing is lost


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_fisher_in_chunks_is_the_same(chunk, monkeypatch):
    head, targets = Head(), normal(9, 12, seed=1).float()
    states, again = (normal(9, 12).float().requires_grad_(True) for _ in range(2))
    whole = fisher_distance(states, targets, head, top_k=5)
    whole.backward()
    monkeypatch.setitem(chunked.over_chunks.__kwdefaults__, "chunk", chunk)
    parts = fisher_distance(again, targets, head, top_k=5)
    parts.backward()
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(again.grad, states.grad, rtol=1e-5, atol=1e-7)


def test_a_state_that_reads_like_its_target_has_no_fisher_distance():
    states = normal(5, 12).float()
    assert float(fisher_distance(states, states, Head(), top_k=None)) == pytest.approx(0.0, abs=1e-9)


def centring_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA as it is usually written: Gram matrices and the centring matrix."""
    n = len(x)
    h = torch.eye(n, dtype=x.dtype) - torch.ones(n, n, dtype=x.dtype) / n
    a, b = h @ x @ x.T @ h, h @ y @ y.T @ h
    return (a * b).sum() / (a.norm() * b.norm())


COUNTS = (5, 1, 30, 2)  # shorter and longer than the width; one token has no geometry
SEQUENCE = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))


@pytest.mark.parametrize(("width", "other"), [(8, 8), (8, 20), (20, 8)])
def test_geometry_is_one_minus_cka_of_each_sequence(width, other):
    x, y = normal(38, width), normal(38, other, seed=1)
    parts = zip(x.split(COUNTS), y.split(COUNTS), strict=True)
    expected = torch.stack([1 - centring_cka(a, b) for a, b in parts if len(a) > 1]).mean()
    got = geometry_distance(x.float(), y.float(), SEQUENCE)
    assert float(got) == pytest.approx(float(expected), abs=1e-5)


def test_geometry_does_not_see_rotation_scale_or_offset():
    x = normal(38, 8).float()
    rotation = torch.linalg.qr(normal(8, 8, seed=3))[0].float()
    offset = normal(4, 8, seed=4).float()[SEQUENCE]
    assert float(geometry_distance(x, 3.0 * x @ rotation + offset, SEQUENCE)) == pytest.approx(0.0, abs=1e-5)
    assert float(geometry_distance(x, normal(38, 8, seed=5).float(), SEQUENCE)) > 0.1


def test_geometry_gradient_reaches_only_the_tokens_of_its_sequence():
    x, y = normal(38, 8).float().requires_grad_(True), normal(38, 8, seed=1).float()
    geometry_distance(x, y, SEQUENCE).backward()
    assert torch.isfinite(x.grad).all()
    lone = SEQUENCE == 1
    assert not x.grad[lone].any()
    assert x.grad[~lone].abs().sum(-1).gt(0).all()


def test_geometry_of_rows_without_relations_is_zero_and_differentiable():
    x = normal(3, 8).float().requires_grad_(True)
    value = geometry_distance(x, normal(3, 8, seed=1).float(), torch.arange(3))
    value.backward()
    assert float(value.detach()) == 0.0
    assert not x.grad.any()


def test_constant_states_have_a_finite_geometry():
    x = torch.ones(5, 4, requires_grad=True)
    value = geometry_distance(x, normal(5, 4).float(), torch.zeros(5, dtype=torch.int64))
    value.backward()
    assert float(value.detach()) == pytest.approx(1.0)
    assert torch.isfinite(x.grad).all()


def test_cosine_relation_is_the_mean_squared_difference_of_cosines():
    x, y = normal(38, 8), normal(38, 8, seed=1)
    terms = []
    for a, b in zip(x.split(COUNTS), y.split(COUNTS), strict=True):
        if len(a) > 1:
            a, b = (side - side.mean(0) for side in (a, b))
            cosines = [functional.cosine_similarity(s[:, None], s[None], dim=-1) for s in (a, b)]
            terms.append((cosines[0] - cosines[1]).square().mean())
    got = geometry_distance(x.float(), y.float(), SEQUENCE, relation="cosine")
    assert float(got) == pytest.approx(float(torch.stack(terms).mean()), abs=1e-5)


def test_mean_square_is_a_mean_over_positions_and_channels():
    x, y = normal(5, 3).float(), normal(5, 3, seed=1).float()
    assert float(mean_square(x, y)) == pytest.approx(float(((x - y) ** 2).mean()))


@pytest.mark.parametrize("term", [mean_square, lambda h, t: fisher_distance(h, t, Head())])
def test_states_and_targets_have_to_match(term):
    with pytest.raises(ValueError, match="differ in shape"):
        term(normal(3, 12), normal(4, 12))
    with pytest.raises(ValueError, match="at least one position"):
        term(normal(0, 12), normal(0, 12))


def test_geometry_needs_paired_positions():
    with pytest.raises(ValueError, match="got 3 and 4 positions"):
        geometry_sum(normal(3, 8), normal(4, 8), torch.zeros(3, dtype=torch.int64))


def test_geometry_of_the_whole_batch_is_that_of_one_sequence():
    x, y = normal(38, 8).float(), normal(38, 8, seed=1).float()
    whole = Geometry(scope="batch", positions="answer")(view_of(x, y, sequence=SEQUENCE))
    assert whole.count == 1
    torch.testing.assert_close(whole.total[0], geometry_distance(x, y, torch.zeros_like(SEQUENCE)))


@pytest.mark.parametrize(
    ("scope", "micro", "fits"),
    [("batch", 3, False), ("batch", 8, True), ("batch", None, True), ("sequence", 3, True)],
)
def test_rows_that_are_compared_with_one_another_stay_together(scope, micro, fits):
    objective = Objective(terms={"layer": Geometry(scope=scope), "ce": CrossEntropy()})
    optim = OptimConfig(batch_size=8, micro_batch_size=micro)
    if fits:
        pipeline.check_batches(objective, optim)
    else:
        with pytest.raises(
            RequestError, match=r"objective.terms.layer compares all rows.*micro_batch_size=3"
        ):
            pipeline.check_batches(objective, optim)
