"""logit_lstsq against least squares on dense logits, and the k strongest tokens against a dense decomposition."""

from __future__ import annotations

import pytest
import torch

from pkt.errors import PktError, RequestError
from pkt.saving import load, save
from pkt.semantics import AlignmentMap, Cosine, HeadView, LogitLstsq, TopTokens, decomposition, quality_card

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
VOCABULARY = 60
WIDTHS = [(12, 7), (7, 12), (9, 9)]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(rows):
    length = rows.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, rows / length.clamp_min(1e-300), 0.0)


def basis(weight):
    return unit(torch.linalg.pinv(weight, rtol=1e-7).T)


def view(weight, **fields):
    return HeadView(weight=weight, **fields)


def lstsq(student, teacher):
    """Least squares on dense logits, of minimal length."""
    return torch.linalg.lstsq(student, teacher, rcond=1e-5, driver="gelsd").solution


def deficient(width, seed):
    full = draw(VOCABULARY, width, seed=seed)
    full[:, -2:] = full[:, :2] @ draw(2, 2, seed=seed + 9)
    full[[3, 17]] = 0
    return full


@pytest.mark.parametrize("kind", ["full", "rank deficient"])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_logit_lstsq_is_least_squares_on_dense_logits(widths, kind):
    make = deficient if kind == "rank deficient" else lambda width, seed: draw(VOCABULARY, width, seed=seed)
    teacher, student = make(widths[0], 1), make(widths[1], 2)
    fitted = LogitLstsq(normalise=False).fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(fitted.weight.double(), lstsq(student, teacher), **TOLERANCE)
    states = draw(6, widths[0], seed=3)
    logits = states @ teacher.T
    torch.testing.assert_close(fitted(states).double(), lstsq(student, logits.T).T, **TOLERANCE)
    directions = LogitLstsq().fit(teacher=view(teacher), student=view(student))
    expected = lstsq(student, (unit(states) @ teacher.T).T).T
    torch.testing.assert_close(directions(states).double(), expected, **TOLERANCE)
    assert fitted.info["rank_student"] == widths[1] - 2 * (kind != "full")


def test_logit_lstsq_of_a_head_with_fewer_tokens_than_channels():
    teacher, student = draw(10, 7, seed=1), draw(10, 12, seed=2)
    fitted = LogitLstsq().fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(fitted.weight.double(), lstsq(student, teacher), **TOLERANCE)
    torch.testing.assert_close(
        student @ fitted.weight.double(), teacher, **TOLERANCE
    )  # logits are met exactly


@pytest.mark.parametrize("sizes", [(50, 60), (60, 50)], ids=str)
def test_logit_lstsq_leaves_rows_beyond_the_shorter_vocabulary_out(sizes):
    teacher, student = draw(sizes[0], 12, seed=1), draw(sizes[1], 7, seed=2)
    fitted = LogitLstsq().fit(teacher=view(teacher), student=view(student))
    torch.testing.assert_close(fitted.weight.double(), lstsq(student[:50], teacher[:50]), **TOLERANCE)
    assert fitted.info["anchors"] == 50


def test_logit_lstsq_with_shared_anchors_and_folded_norms():
    teacher, student = draw(40, 12, seed=1).bfloat16(), draw(50, 7, seed=2).bfloat16()
    ids = torch.arange(30).flip(0), torch.arange(20, 50)
    norms = draw(12, seed=3).abs() + 0.1, draw(7, seed=4).abs() + 0.1
    views = [
        view(weight, norm=norm, shared=rows)
        for weight, norm, rows in zip((teacher, student), norms, ids, strict=True)
    ]
    for fold in (True, False):
        fitted = LogitLstsq(anchors="shared", fold_norm=fold).fit(teacher=views[0], student=views[1])
        dense = [
            weight.double()[rows] * (norm if fold else 1.0)
            for weight, rows, norm in zip((student, teacher), ids[::-1], norms[::-1], strict=True)
        ]
        torch.testing.assert_close(fitted.weight.double(), lstsq(*dense), **TOLERANCE)


def test_logit_lstsq_of_one_head_is_the_identity():
    weight = draw(40, 7)
    fitted = LogitLstsq(normalise=False).fit(teacher=view(weight), student=view(weight))
    torch.testing.assert_close(fitted.weight, torch.eye(7), **TOLERANCE)


def test_logit_lstsq_refusals():
    head, bad = view(draw(10, 4)), draw(10, 4)
    bad[1, 1] = float("inf")
    with pytest.raises(PktError, match="every row of an LM head is zero"):
        LogitLstsq().fit(teacher=head, student=view(torch.zeros(10, 4)))
    with pytest.raises(PktError, match="NaN or infinity"):
        LogitLstsq().fit(teacher=view(bad), student=head)
    with pytest.raises(RequestError, match="anchors=shared needs the tokens"):
        LogitLstsq(anchors="shared").fit(teacher=head, student=head)
    with pytest.raises(ValueError, match="rcond is a number below 1"):
        LogitLstsq(rcond=1.0)


def textbook_top(teacher, student, states, k):
    """Decompose over all tokens, keep the k largest coefficients, recompose."""
    a = unit(states) @ basis(teacher).T
    kept = torch.zeros_like(a).scatter(-1, a.abs().topk(k, dim=-1).indices, 1.0)
    return (a * kept) @ basis(student)


@pytest.mark.parametrize("k", [1, 5, 30, 59])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("blocks", [(7, 2), (64, 512)], ids=str)
def test_strongest_tokens_equal_the_dense_decomposition(widths, k, blocks, monkeypatch):
    monkeypatch.setattr(decomposition, "BLOCK", blocks[0])
    monkeypatch.setattr(decomposition, "CHUNK", blocks[1])
    teacher, student = deficient(widths[0], 1), draw(VOCABULARY, widths[1], seed=2)
    fitted = Cosine(top_k=k).fit(teacher=view(teacher), student=view(student))
    states = draw(5, widths[0], seed=3)
    torch.testing.assert_close(
        fitted(states).double(), textbook_top(teacher, student, states, k), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(fitted(states[None])[0], fitted(states))
    assert fitted(states[:1]).shape == (1, widths[1])
    assert fitted(states[:0]).shape == (0, widths[1])


def test_every_token_is_the_cosine_map():
    teacher, student = view(draw(VOCABULARY, 12, seed=1)), view(draw(VOCABULARY, 7, seed=2))
    plain, states = Cosine().fit(teacher=teacher, student=student), draw(5, 12, seed=3)
    for k in (VOCABULARY, VOCABULARY + 1):
        fitted = Cosine(top_k=k).fit(teacher=teacher, student=student)
        assert fitted.tokens is None
        assert torch.equal(fitted(states), plain(states))
    part = Cosine(top_k=3).fit(teacher=teacher, student=student).tokens
    whole = TopTokens(teacher_AD=part.teacher_AD, student_AD=part.student_AD, top_k=VOCABULARY)
    torch.testing.assert_close(whole(unit(states).float()), plain(states), **TOLERANCE)


def test_strongest_tokens_among_shared_anchors_with_folded_norms():
    teacher, student = draw(40, 12, seed=1), draw(50, 7, seed=2)
    ids = torch.arange(30).flip(0), torch.arange(20, 50)
    norms = draw(12, seed=3).abs() + 0.1, draw(7, seed=4).abs() + 0.1
    views = [
        view(weight, norm=norm, shared=rows)
        for weight, norm, rows in zip((teacher, student), norms, ids, strict=True)
    ]
    fitted = Cosine(top_k=4, anchors="shared", fold_norm=True).fit(teacher=views[0], student=views[1])
    states = draw(5, 12, seed=3)
    a = unit(states) @ basis(teacher * norms[0])[ids[0]].T
    a = a * torch.zeros_like(a).scatter(-1, a.abs().topk(4, dim=-1).indices, 1.0)
    expected = a @ basis(student * norms[1])[ids[1]]
    torch.testing.assert_close(fitted(states).double(), expected, **TOLERANCE)


def test_strongest_tokens_survive_storage_and_are_graded(tmp_path):
    teacher, student = draw(VOCABULARY, 12, seed=1).bfloat16(), draw(VOCABULARY, 7, seed=2).bfloat16()
    fitted = Cosine(top_k=4).fit(teacher=view(teacher), student=view(student))
    save(fitted, tmp_path / "map.json")
    read = load(AlignmentMap, tmp_path / "map.json")
    states = draw(9, 12, seed=3)
    assert torch.equal(read(states), fitted(states))
    assert read.info["top_k"] == 4
    assert torch.equal(fitted(torch.zeros(2, 12)), torch.zeros(2, 7))
    torch.testing.assert_close(fitted(1e3 * states), fitted(states))
    card = quality_card(fitted, states, fitted(states))
    assert card.cosine == pytest.approx(1, abs=1e-6)
    assert card.rank == 7


def test_strongest_tokens_refusals():
    with pytest.raises(ValueError, match="top_k is a number from 1, got 0"):
        Cosine(top_k=0)
    with pytest.raises(ValueError, match="top_k is a number of tokens"):
        TopTokens(teacher_AD=draw(3, 2), student_AD=draw(3, 2), top_k=0)
    with pytest.raises(ValueError, match="bases are paired by token, got 3 and 4"):
        TopTokens(teacher_AD=draw(3, 2), student_AD=draw(4, 2), top_k=1)
