"""Divergences to the teacher: closed forms, top-k with a tail, cached against live, padded vocabularies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from pkt.objectives import (
    Divergence,
    OutputHead,
    TokenDistribution,
    divergence,
    over_chunks,
    shared_columns,
    token_distribution,
)
from pkt.training.capture import Shelf, capture_all
from pkt.training.passes import Pass, ReadOut
from pkt.training.teacher import LiveTeacher, TopRows
from terms import mean_of
from tiny import tiny_model


def logits(seed: int, count: int = 7, vocabulary: int = 50) -> Tensor:
    return 3 * torch.randn(count, vocabulary, generator=torch.Generator().manual_seed(seed))


def plain(z_q: Tensor, z_p: Tensor, kind: str, tau: float) -> Tensor:
    """The definitions, in float64."""
    q, p = ((z.double() / tau).softmax(-1) for z in (z_q, z_p))
    m = (p + q) / 2
    of = {
        "forward": lambda: (p * (p / q).log()).sum(-1),
        "reverse": lambda: (q * (q / p).log()).sum(-1),
        "js": lambda: 0.5 * (p * (p / m).log()).sum(-1) + 0.5 * (q * (q / m).log()).sum(-1),
    }
    return tau**2 * of[kind]()


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_divergence_is_its_definition(kind, tau):
    teacher = token_distribution(logits(1), top_k=None, temperature=tau)
    got = divergence(logits(0), teacher, kind=kind, temperature=tau)
    torch.testing.assert_close(got.double(), plain(logits(0), logits(1), kind, tau), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
def test_kept_tokens_give_a_lower_bound_that_grows_to_the_whole(kind):
    whole = divergence(logits(0), token_distribution(logits(1), top_k=None), kind=kind)
    before = torch.zeros(7)
    for k in (1, 5, 20, 49):
        kept = divergence(logits(0), token_distribution(logits(1), top_k=k), kind=kind)
        assert (kept >= before - 1e-5).all()
        assert (kept <= whole + 1e-5).all()
        before = kept
    torch.testing.assert_close(before, whole, rtol=1e-4, atol=1e-5)
    all_of_them = token_distribution(logits(1), top_k=50)
    assert all_of_them.tokens_nK is None


def test_kept_mass_and_tail_are_one():
    kept = token_distribution(logits(1), top_k=5, temperature=2.0)
    mass = kept.log_probs_nK.exp().sum(-1) + kept.log_tail_n.exp()
    torch.testing.assert_close(mass, torch.ones(7))


@pytest.mark.parametrize("kind", ["forward", "reverse", "js"])
def test_a_teacher_that_is_certain_keeps_gradients_finite(kind):
    certain = torch.full((2, 50), -1e4)
    certain[:, 3] = 1e4
    z = logits(0, 2).requires_grad_(True)
    for k in (None, 4):
        value = divergence(z, token_distribution(certain, top_k=k), kind=kind).sum()
        (gradient,) = torch.autograd.grad(value, z)
        assert torch.isfinite(gradient).all()


def test_equal_distributions_have_no_divergence():
    for k in (None, 6):
        got = divergence(logits(0), token_distribution(logits(0), top_k=k))
        torch.testing.assert_close(got, torch.zeros(7), rtol=0, atol=1e-5)


def test_chunks_change_memory_and_not_the_gradient():
    kept = token_distribution(logits(1), top_k=6)
    assert kept.tokens_nK is not None
    head = nn.Linear(8, 50, bias=False)

    def term(h: Tensor, p: Tensor, ids: Tensor, tail: Tensor) -> Tensor:
        return divergence(head(h), TokenDistribution(log_probs_nK=p, tokens_nK=ids, log_tail_n=tail)).sum()

    results = []
    for chunk in (100, 2):
        states = torch.ones(7, 8).cumsum(0).requires_grad_(True)
        over_chunks(term, states, kept.log_probs_nK, kept.tokens_nK, kept.log_tail_n, chunk=chunk).backward()
        results.append(states.grad)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def rows() -> Encoded:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 300, (length,), generator=generator).tolist() for length in (9, 6, 12, 7, 5)]
    return Encoded(input_ids=ids, prompt_lengths=[4, 2, 8, 6, 1])


def live(family: str, top_k: int | None, shared: int = 320, **sizes: int) -> LiveTeacher:
    teacher = tiny_model(family, depth=3, width=48, seed=1, **sizes)
    return LiveTeacher(
        arch=Architecture.of(teacher),
        read_out=ReadOut(shared=torch.arange(shared), temperature=1.5, top_k=top_k),
    )


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("top_k", [None, 16])
def test_cached_kl_equals_live_kl(family, top_k, tmp_path):
    teacher, student = live(family, top_k), Architecture.of(tiny_model(family, seed=2))
    wanted = Pass(arch=teacher.arch, encoded=rows(), outputs=teacher.read_out)
    columns = capture_all(wanted, batch_size=2, shelf=Shelf(folder=tmp_path, limit=2000))
    cached = TopRows.among(columns)
    assert cached is not None
    head = OutputHead(arch=student, shared=torch.arange(320))
    term = Divergence(temperature=1.5, top_k=top_k)
    for chosen in ([2, 0], [4], [1, 3, 0, 2, 4]):
        batch = collate(rows(), chosen)
        states = torch.randn(int(batch.supervised.sum()), 32, generator=torch.Generator().manual_seed(5))
        values = [mean_of(term, states, head=head, teacher=source.of(batch)) for source in (cached, teacher)]
        torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)


def test_live_kl_equals_whole_logits_of_both_models():
    teacher, student = live("llama", None), Architecture.of(tiny_model("llama", seed=2))
    batch = collate(rows(), [0, 3])
    z_p = teacher.arch.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    final = student.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    z_q = student.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    expected = plain(z_q[batch.supervised], z_p[batch.supervised], "forward", 1.5).mean()
    head = OutputHead(arch=student, shared=torch.arange(320))
    term = Divergence(temperature=1.5, top_k=None)
    got = mean_of(term, final[batch.supervised], head=head, teacher=teacher.of(batch))
    assert float(got.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)


def test_padding_rows_of_either_head_take_no_part():
    teacher = live("llama", None, vocab=352)
    student = Architecture.of(tiny_model("llama", seed=2, vocab=336))
    batch = collate(rows(), [0])
    found = teacher.of(batch)
    distribution = found.read(*found.tensors)
    assert distribution.log_probs_nK.shape[-1] == 320
    torch.testing.assert_close(
        distribution.log_probs_nK.exp().sum(-1), torch.ones(len(distribution.log_probs_nK))
    )
    assert shared_columns(student.read_out(torch.zeros(2, 32)), teacher.read_out.shared).shape == (2, 320)


@pytest.mark.parametrize("tau", [1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 3])
def test_two_vocabularies_are_compared_over_shared_tokens_and_the_rest(tau, top_k):
    """Slow and obvious: probabilities of the whole vocabularies, summed up outside the shared tokens."""
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(4, size, generator=generator) * 3 for size in (11, 9))
    student.requires_grad_(True)
    theirs, own = torch.tensor([10, 2, 5, 7]), torch.tensor([0, 8, 3, 4])
    columns = shared_columns(teacher, theirs, rest=tau)
    kept = token_distribution(columns, top_k=top_k, temperature=tau)
    found = divergence(shared_columns(student, own, rest=tau), kept, temperature=tau)
    expected = torch.zeros(4)
    for n in range(4):
        p, q = (torch.softmax(side[n] / tau, -1) for side in (teacher, student))
        p, q = p[theirs], q[own]
        p, q = (torch.cat([part, 1 - part.sum()[None]]) for part in (p, q))
        if top_k is not None:
            best = p.topk(top_k).indices
            p, q = (torch.cat([part[best], 1 - part[best].sum()[None]]) for part in (p, q))
        expected[n] = tau**2 * (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(side.sum(), student, retain_graph=True)[0] for side in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_a_vocabulary_that_is_shared_whole_leaves_no_rest():
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 4, 9, generator=generator)
    whole = divergence(student, token_distribution(teacher, top_k=None, temperature=2.0), temperature=2.0)
    every = torch.arange(9)
    columns = [shared_columns(side, every, rest=2.0) for side in (teacher, student)]
    found = divergence(
        columns[1], token_distribution(columns[0], top_k=None, temperature=2.0), temperature=2.0
    )
    torch.testing.assert_close(found, whole)
