"""Likelihoods of chunks and sorted probabilities, against slow references; where terms of two vocabularies look."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from pkt.data.batching import collate, position_counts, position_mask
from pkt.data.encoding import encode
from pkt.data.meeting import met
from pkt.data.spelling import Spelling
from pkt.models.architecture import Architecture
from pkt.objectives import Chunk, Distributions, OutputHead, TokenDistribution, Uld, View, token_distribution
from pkt.objectives.chunk import binary_cross_entropy, chunk_log_likelihoods
from pkt.objectives.needs import Chunks, Head, Outputs
from pkt.objectives.uld import sorted_difference
from pkt.training.chunked import CHUNKS, ChunkRead, chunked
from tiny import tiny_model
from vocabularies import vocabulary

ROWS = [
    {"id": "a", "prompt": "Ada has 12 apples.\nResult:", "answer": " 13 books, and 4 apples"},
    {"id": "b", "prompt": "Ben?", "answer": " Größe naïve"},
    {"id": "c", "prompt": "How many apples", "answer": " 한국 x"},
]


def both(kinds=("byte_bpe", "characters")):
    """The rows as two models read them, with their spellings."""
    tokenizers = [vocabulary(kind, begins=False) for kind in kinds]
    encoded = [encode(ROWS, tokenizer, max_length=1000) for tokenizer in tokenizers]
    student, teacher = met(ROWS, (tokenizers[0], encoded[0]), (tokenizers[1], encoded[1]))
    return (student, teacher), [Spelling.of(tokenizer, "student") for tokenizer in tokenizers]


def answer_bytes(spelling: Spelling, encoded, row: int) -> list[bytes]:
    ids = encoded.input_ids[row][encoded.prompt_lengths[row] : -1]
    ends = spelling.ends(ROWS[row]["answer"], ids)
    text = ROWS[row]["answer"].encode()
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("ends", ["any", "space"])
@pytest.mark.parametrize(
    "kinds", [("byte_bpe", "piece_bpe"), ("piece_bpe", "characters"), ("unigram", "byte_bpe")]
)
def test_chunks_have_the_same_bytes_on_both_sides_and_are_the_whole_answer(kinds, ends):
    sides, spellings = both(kinds)
    texts = []
    for encoded, spelling in zip(sides, spellings, strict=True):
        per_row = []
        for row, answer in enumerate(ROWS):
            chunks, _ = chunked(collate(encoded, [row]), ends)
            spelled = spelling.ends(
                answer["answer"], encoded.input_ids[row][encoded.prompt_lengths[row] : -1]
            )
            own, at = [], 0
            for end, begins in zip([*spelled, spelled[-1]], chunks.begins_N.tolist(), strict=True):
                if begins:
                    own.append(b"")
                own[-1] += answer["answer"].encode()[at:end] if end >= at else b""
                at = max(at, end)
            per_row.append(own)
        texts.append(per_row)
    assert texts[0] == texts[1]
    assert [b"".join(row) for row in texts[0]] == [row["answer"].encode() for row in ROWS]
    if ends == "space":
        # the end token belongs to the last word, or is a chunk behind it
        assert all(chunk[:1].isspace() or not chunk for row in texts[0] for chunk in row)


def test_same_tokens_follow_where_they_have_the_same_bytes():
    sides, spellings = both()
    counts = [position_counts(encoded, "token") for encoded in sides]
    assert counts[0] == counts[1]
    followers = []
    for encoded, spelling in zip(sides, spellings, strict=True):
        batch = collate(encoded, [0, 1, 2])
        mask_BT = position_mask(batch, "token")
        assert mask_BT.sum(1).tolist() == counts[0]
        row_n, place_n = mask_BT.nonzero(as_tuple=True)
        ids = batch.input_ids[row_n, place_n + 1].tolist()
        followers.append([b"" if index in spelling.special else spelling.of_token(index) for index in ids])
    assert followers[0] == followers[1]
    assert 3 <= len(followers[0]) < sum(position_counts(sides[0], "answer")) + 1


def test_of_one_vocabulary_every_token_of_the_answer_is_a_chunk():
    encoded = both()[0][0]
    alone = replace(encoded, met=None, follows=None)
    for ends in ("any", "space", "unbiased"):
        chunks, _ = chunked(collate(alone, [0, 1]), ends)
        assert bool(chunks.begins_N.all())
    for which in ("token", "word", "answer"):
        assert position_counts(alone, which) == position_counts(alone, "answer")


def slow_likelihoods(log_p, begins, rows, log_space):
    """One chunk after the other, in Python."""
    found = []
    for n, value in enumerate(log_p):
        if begins[n]:
            found.append(0.0)
        found[-1] += value
        last = n + 1 == len(log_p) or begins[n + 1]
        if last and log_space is not None and n + 1 < len(log_p) and rows[n + 1] == rows[n]:
            found[-1] += log_space[n + 1]
    return found


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_likelihoods_are_those_of_the_slow_reference(unbiased, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = sorted(torch.randint(0, 4, (17,), generator=generator).tolist())
    begins = [
        bool(torch.rand(1, generator=generator) < 0.5) or n == 0 or rows[n] != rows[n - 1] for n in range(17)
    ]
    log_p = -torch.rand(17, generator=generator, dtype=torch.float64)
    log_space = -torch.rand(17, generator=generator, dtype=torch.float64) if unbiased else None
    found = chunk_log_likelihoods(log_p, torch.tensor(begins), torch.tensor(rows), log_space)
    wanted = slow_likelihoods(log_p.tolist(), begins, rows, None if log_space is None else log_space.tolist())
    assert found.tolist() == pytest.approx(wanted)


def test_the_cross_entropy_is_that_of_two_outcomes_and_least_where_both_agree():
    log_p, log_q = torch.tensor([-0.1, -3.0, -20.0, 0.0]), torch.tensor([-0.4, -0.2, -60.0, -1e-3])
    found = binary_cross_entropy(log_p, log_q, 10.0)
    for value, a, b in zip(found.tolist(), log_p.tolist(), log_q.tolist(), strict=True):
        p, q = math.exp(a / 10 - 1e-6), math.exp(b / 10 - 1e-6)
        assert value == pytest.approx(-(p * math.log(q) + (1 - p) * math.log1p(-q)), rel=1e-3)
    assert (binary_cross_entropy(log_p, log_p, 10.0) <= found + 1e-6).all()


def seen(encoded, space, ends, seed):
    """A batch's final states, a head, and the chunks."""
    generator = torch.Generator().manual_seed(seed)
    batch = collate(encoded, [2, 0, 1])
    arch = Architecture.of(tiny_model("llama", vocab=600, seed=seed))
    chunks, mask_BT = chunked(batch, ends)
    final_BTD = torch.randn(*batch.input_ids.shape, 32, generator=generator)
    return batch, arch, chunks, mask_BT, final_BTD


@pytest.mark.parametrize("ends", ["any", "space", "unbiased"])
def test_the_term_is_that_of_rows_gone_through_one_by_one_with_its_gradient(ends, monkeypatch):
    monkeypatch.setattr("pkt.objectives.chunks.CHUNK", 4)
    sides, spellings = both()
    spaces = []
    for spelling in spellings:
        space = torch.zeros(spelling.tokenizer.vocab_size + 40, dtype=torch.bool)
        for index in spelling.tokenizer.get_vocab().values():
            space[index] = spelling.of_token(index)[:1].isspace()
        spaces.append(space)
    student, teacher = (
        seen(encoded, space, ends, seed) for encoded, space, seed in zip(sides, spaces, (1, 2), strict=True)
    )
    read = ChunkRead(ends=ends, space=spaces[1] if ends == "unbiased" else None)
    taught = read(teacher[1], teacher[4], teacher[0])[CHUNKS]
    counts = read.columns(sides[1])[CHUNKS].counts
    assert taught.shape == (sum(counts), 1)
    final = student[4][student[3]].clone().requires_grad_()
    head = OutputHead(arch=student[1], space=spaces[0])
    view = View(
        count=len(final),
        given={Chunks: replace(student[2], teacher_C=taught[:, 0]), Head: head},
        final=final,
    )
    term = Chunk(ends=ends, temperature=5.0)
    sums = term(view)
    assert sums.count == term.count(view) == sum(counts)
    (gradient,) = torch.autograd.grad(sums.total, final)

    again = student[4][student[3]].double().clone().requires_grad_()
    wanted = slow_term(again, student, spaces[0], teacher, spaces[1], ends)
    assert float(sums.total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)
    (right,) = torch.autograd.grad(wanted, again)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-3, atol=1e-6)


def slow_term(final, student, space, teacher, other_space, ends):
    """Chunk by chunk, in float64, with probabilities written out."""
    sides = []
    for states, (_, arch, chunks, mask_BT, final_BTD), own_space in (
        (final, student, space),
        (None, teacher, other_space),
    ):
        states = final_BTD[mask_BT].double() if states is None else states
        probs = (states @ arch.head_weight().double().T).softmax(-1)
        own, begins, rows = [], chunks.begins_N.tolist(), chunks.row_N.tolist()
        for n, token in enumerate(chunks.tokens_N.tolist()):
            if begins[n]:
                own.append(torch.ones((), dtype=torch.float64))
            own[-1] = own[-1] * probs[n, token]
            behind = n + 1 < len(rows) and begins[n + 1] and rows[n + 1] == rows[n]
            if ends == "unbiased" and behind:
                kept = functional.pad(own_space, (0, probs.shape[-1] - len(own_space)))
                own[-1] = own[-1] * probs[n + 1][kept].sum()
        sides.append(torch.stack(own))
    q, p = ((side ** (1 / 5.0)) * math.exp(-1e-6) for side in sides)
    return -(p.detach() * q.log() + (1 - p.detach()) * (1 - q).log()).sum()


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("sizes", [(12, 9), (9, 12), (10, 10)])
def test_sorted_probabilities_are_compared_place_by_place(top_k, sizes):
    generator = torch.Generator().manual_seed(0)
    own, taught = (torch.randn(6, size, generator=generator) for size in sizes)
    own.requires_grad_()
    log_probs = (taught / 1.5).log_softmax(-1).sort(-1, descending=True).values[:, :top_k]
    found = sorted_difference(own, log_probs, temperature=1.5, whole=top_k is None)
    for n in range(6):
        p, q = (sorted((z[n] / 1.5).softmax(-1).tolist(), reverse=True) for z in (taught, own))
        long = max(len(p), len(q))
        p, q = p + [0.0] * (long - len(p)), q + [0.0] * (long - len(q))
        if top_k is not None:
            p, q = ([*side[:top_k], sum(side[top_k:])] for side in (p, q))
        assert float(found[n].detach()) == pytest.approx(
            sum(abs(a - b) for a, b in zip(p, q, strict=True)), abs=1e-6
        )
    assert torch.autograd.grad(found.sum(), own)[0].abs().sum() > 0


def test_sorting_forgets_which_token_is_which():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    other = logits[:, torch.randperm(9, generator=torch.Generator().manual_seed(2))]
    log_probs = other.log_softmax(-1).sort(-1, descending=True).values
    view = View(
        count=4,
        given={
            Outputs: Distributions(tensors=(log_probs,), read=lambda p: TokenDistribution(log_probs_nK=p)),
            Head: OutputHead(arch=Architecture.of(tiny_model("llama", vocab=9, depth=1))),
        },
        final=torch.zeros(4, 32),
    )
    assert float(Uld(top_k=None)(view).total.detach()) > 0
    assert float(sorted_difference(logits, log_probs, temperature=1.0, whole=True).sum()) == pytest.approx(
        0, abs=1e-5
    )
    assert token_distribution(logits, top_k=None).log_probs_nK.shape == (4, 9)
