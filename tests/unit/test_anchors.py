"""Tokens that two vocabularies have: the same bytes, special tokens by their role."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pkt.data.anchors import anchors
from pkt.data.spelling import FALLBACK, Spelling
from pkt.errors import RequestError
from pkt.methods.readings import counts_rest
from pkt.semantics import Cosine, HeadView, LogitLstsq
from tiny import tiny_tokenizer
from vocabularies import KINDS, vocabulary

BIG = (10_000, 10_000)


@pytest.mark.parametrize("kinds", [*permutations(KINDS, 2)], ids="-".join)
def test_anchors_are_the_same_bytes_and_each_token_is_one_once(kinds):
    sides = [Spelling.of(vocabulary(kind), "teacher") for kind in kinds]
    theirs, own = anchors(*sides, BIG)
    assert len(theirs) == len(own) > 20
    assert len(set(theirs)) == len(theirs)
    assert len(set(own)) == len(own)
    for teacher, student in zip(theirs, own, strict=True):
        if student in sides[1].special:
            roles = [[s.tokenizer.bos_token_id, s.tokenizer.eos_token_id] for s in sides]
            assert roles[0].index(teacher) == roles[1].index(student)
        else:
            assert sides[0].of_token(teacher) == sides[1].of_token(student) != b""


def test_spaces_are_one_whoever_writes_them():
    piece, byte, word = (vocabulary(kind) for kind in ("piece_bpe", "byte_bpe", "wordpiece"))
    spelled = {
        Spelling.of(tokenizer, "student").of_token(tokenizer.convert_tokens_to_ids(name))
        for tokenizer, name in ((byte, "Ġapples"), (word, "apples"))
    }
    assert spelled == {b" apples"}
    assert Spelling.of(word, "student").of_token(word.convert_tokens_to_ids("##s")) == b"s"
    assert Spelling.of(piece, "student").of_token(piece.convert_tokens_to_ids("▁")) == b" "


@pytest.mark.parametrize(
    ("name", "stands_for"), [(",", b","), ("中", "中".encode()), ("a", b" a"), ("7", b" 7"), ("##,", b",")]
)
def test_words_that_are_cut_off_without_a_space_begin_with_none(name: str, stands_for: bytes):
    vocab = {token: index for index, token in enumerate(["<unk>", "a", "##a", "7", "##7", ",", "##,", "中"])}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert Spelling.of(tokenizer, "student").of_token(vocab[name]) == stands_for


def test_a_letter_counts_before_the_byte_that_stands_in_for_it():
    tokenizer, spelling = vocabulary("unigram"), Spelling.of(vocabulary("unigram"), "student")
    theirs, _ = anchors(spelling, Spelling.of(vocabulary("characters"), "student"), BIG)
    chosen = tokenizer.convert_ids_to_tokens(theirs)
    assert "a" in chosen
    assert not any(FALLBACK.fullmatch(name) for name in chosen if len(name) > 1)


def test_tokens_without_a_row_are_no_anchors_and_a_vocabulary_shares_all_of_itself():
    own = Spelling.of(tiny_tokenizer(), "student")
    theirs, mine = anchors(own, own, (300, 320))
    assert theirs == mine
    assert max(mine) == 299
    assert len(mine) == 299  # all but <pad>, which has no role in a text


def views(count: int, width: int = 8) -> dict[str, HeadView]:
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn(40, size, generator=generator) for size in (width + 4, width)]
    ids = torch.randperm(40, generator=generator)[:count], torch.arange(count)
    return {
        who: HeadView(weight=head, shared=own, two_vocabularies=True)
        for who, head, own in zip(("teacher", "student"), heads, ids, strict=True)
    }


@pytest.mark.parametrize("semantics", [Cosine(), LogitLstsq()])
def test_maps_of_two_vocabularies_are_made_of_anchors_by_name_or_not(semantics):
    both = views(20)
    found = semantics.fit(**both)
    assert found.info["anchors"] == 20
    torch.testing.assert_close(found.weight, type(semantics)(anchors="shared").fit(**both).weight)


def test_least_squares_over_anchors_are_those_of_the_rows():
    both = views(20)
    rows = [view.weight[view.shared].double() for view in both.values()]
    expected = torch.linalg.lstsq(rows[1], rows[0]).solution
    torch.testing.assert_close(LogitLstsq().fit(**both).weight.double(), expected, rtol=1e-4, atol=1e-5)


def test_too_few_anchors_are_refused():
    with pytest.raises(
        RequestError, match=r"have 7 tokens of the same bytes, and a map made of them needs at least 8"
    ):
        Cosine().fit(**views(7))


def test_no_token_is_two_anchors_where_one_both_begins_and_ends():
    both = vocabulary("byte_bpe", begins=True)
    both.bos_token = both.eos_token
    sides = Spelling.of(vocabulary("unigram", begins=True), "teacher"), Spelling.of(both, "student")
    for pair in (sides, sides[::-1]):
        for ids in anchors(*pair, BIG):
            assert len(set(ids)) == len(ids)


def test_the_token_that_ends_a_reply_is_an_anchor_in_place_of_the_tokenizers_own():
    kinds = [vocabulary(kind, begins=True) for kind in ("unigram", "byte_bpe")]
    end = kinds[0].pad_token_id
    theirs, own = anchors(*(Spelling.of(one, "x") for one in kinds), BIG, (end, kinds[1].eos_token_id))
    assert (end, kinds[1].eos_token_id) in zip(theirs, own, strict=True)
    assert kinds[0].eos_token_id not in theirs


def test_a_piece_that_is_listed_among_added_tokens_is_spelled_as_a_piece():
    spelling = Spelling.of(vocabulary("piece_bpe", begins=False), "student")
    index = next(index for name, index in spelling.tokenizer.get_vocab().items() if name.startswith("▁"))
    name = spelling.tokenizer.convert_ids_to_tokens(index)
    listed = Spelling(
        tokenizer=spelling.tokenizer,
        decoders=spelling.decoders,
        added={**spelling.added, index: name},
        special=spelling.special,
    )
    assert listed.of_token(index) == spelling.of_token(index) == name.replace("▁", " ").encode()


@pytest.mark.parametrize(
    ("one", "sizes", "counts"),
    [(True, None, False), (False, (9, 8), True), (False, (9, 5), False), (False, (5, 9), False)],
)
def test_other_tokens_count_only_where_both_vocabularies_have_some(one, sizes, counts):
    bench = SimpleNamespace(one_vocabulary=one, pair_report=SimpleNamespace(student_ids=torch.arange(5)))
    if sizes is not None:
        bench.teacher_config, bench.student_config = (SimpleNamespace(vocab_size=size) for size in sizes)
    assert counts_rest(bench) is counts
