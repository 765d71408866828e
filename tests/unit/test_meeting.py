"""Two tokenisations of one text: where they meet, for every kind of tokenizer, over texts of every script."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkt.data.batching import collate, position_counts, position_mask
from pkt.data.encoding import encode
from pkt.data.meeting import ASKED, BEGINS, ENDS, common_parts, marks, met, pairs, thinned
from pkt.data.spelling import UNKNOWN, Spelling
from pkt.errors import RequestError
from tiny import CHAT
from vocabularies import KINDS, SENTENCES, vocabulary

SPELLINGS = {
    (kind, begins): Spelling.of(vocabulary(kind, begins=begins), "student")
    for kind, begins in product(KINDS, (False, True))
}
LETTERS = "".join(sorted(set("".join(SENTENCES)))) + "\t\n  xyzÄß京한🙂ﬁ\u0301▁Ġ"
TEXTS = st.text(LETTERS, min_size=1, max_size=24) | st.text(
    st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
)
ROW = {"id": "a", "prompt": "Ada has 12 apples.\nResult:", "answer": " 3 books"}


def row(spelling: Spelling, prompt: str, answer: str) -> tuple[list[int], int]:
    encoded = encode([{"id": "a", "prompt": prompt, "answer": answer}], spelling.tokenizer, max_length=10_000)
    return encoded.input_ids[0], encoded.prompt_lengths[0]


def marked(spelling: Spelling, prompt: str, answer: str):
    return marks(
        spelling,
        *row(spelling, prompt, answer),
        prompt=prompt,
        answer=answer,
        parts=common_parts(prompt, None),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", SENTENCES)
def test_the_last_token_of_a_text_ends_with_it(kind, text):
    spelling = SPELLINGS[kind, False]
    ids = spelling.tokenizer(text)["input_ids"]
    ends = spelling.ends(text, ids)
    assert len(ends) == len(ids)
    assert ends[-1] == len(text.encode())
    told = [end for end in ends if end != UNKNOWN]
    assert told == sorted(told)


@pytest.mark.parametrize("kind", ["byte_bpe", "piece_bpe", "unigram", "characters"])
@pytest.mark.parametrize("text", SENTENCES[:6])
def test_ends_are_those_of_the_decoded_prefixes(kind, text):
    """Slow and obvious: decode ever more tokens, and see how many bytes of the text that is."""
    spelling = SPELLINGS[kind, False]
    ids = spelling.tokenizer(text)["input_ids"]
    for count, end in enumerate(spelling.ends(text, ids), start=1):
        prefix = spelling.tokenizer.decode(ids[:count], clean_up_tokenization_spaces=False)
        if (
            end != UNKNOWN and "\ufffd" not in prefix and not set("，？") & set(text)
        ):  # NFKC writes them otherwise
            assert prefix.encode() == text.encode()[:end]


@settings(max_examples=60, deadline=None)
@given(prompt=TEXTS, answer=TEXTS, kinds=st.sampled_from([*permutations(KINDS, 2)]), begins=st.booleans())
def test_pairs_are_monotone_complete_and_have_read_the_same(prompt, answer, kinds, begins):
    one, other = SPELLINGS[kinds[0], begins], SPELLINGS[kinds[1], not begins]
    if not all(spelling.tokenizer(prompt)["input_ids"] for spelling in (one, other)):
        return  # nothing predicts the answer, which encoding refuses
    sides = [marked(spelling, prompt, answer) for spelling in (one, other)]
    found = pairs(*sides)
    for before, after in pairwise(found):
        assert before[0] < after[0]
        assert before[1] < after[1]
    both = {mark for mark in sides[0] if mark is not None} & {mark for mark in sides[1] if mark is not None}
    assert len(found) == len(both)
    lengths = [row(spelling, prompt, answer) for spelling in (one, other)]
    firsts = [length - 1 for _, length in lengths]
    assert (firsts[0], firsts[1]) in found
    assert found[-1] == (len(lengths[0][0]) - 1, len(lengths[1][0]) - 1)
    for position, where in found:  # a position that predicts the answer is paired with one that does
        assert (position >= firsts[0]) == (where >= firsts[1])


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, kinds=st.sampled_from([*permutations(("byte_bpe", "piece_bpe", "characters"), 2)]))
def test_tokens_up_to_a_pair_are_the_same_text(text, kinds):
    one, other = (SPELLINGS[kind, False] for kind in kinds)
    ids = [spelling.tokenizer(text)["input_ids"] for spelling in (one, other)]
    if any(spelling.tokenizer.unk_token_id in own for spelling, own in zip((one, other), ids, strict=True)):
        return
    where = {end: place for place, end in enumerate(other.ends(text, ids[1])) if end > 0}
    for place, end in enumerate(one.ends(text, ids[0])):
        if end in where:
            prefixes = [
                b"".join(map(spelling.of_token, own[: last + 1])).lstrip(b" ")
                for spelling, own, last in zip((one, other), ids, (place, where[end]), strict=True)
            ]
            if "<unk>" not in text and "▁" not in text:
                assert prefixes[0] == prefixes[1] == text.encode()[:end].lstrip(b" ")


@pytest.mark.parametrize("kinds", [*permutations(KINDS, 2)], ids="-".join)
@pytest.mark.parametrize("text", ["Ada has 12 apples. Zat \ufb01ne", "Größe 你好 \u2603 Ada has"])
def test_texts_meet_whoever_begins_them_with_a_token_and_knows_not_all_of_them(kinds, text):
    rows, found = [{"id": "t", "prompt": "", "answer": text}], set()
    for begins in product((False, True), repeat=2):
        tokenizers = [vocabulary(kind, begins=first) for kind, first in zip(kinds, begins, strict=True)]
        own, theirs = ((one, encode(rows, one, max_length=500)) for one in tokenizers)
        student, _ = met(rows, own, theirs, None)
        found.add(position_counts(student, "all")[0] - all(begins))
    assert min(found) > 1
    assert max(found) - min(found) <= 1


@pytest.mark.parametrize("kinds", [*permutations(KINDS, 2)], ids="-".join)
@pytest.mark.parametrize("chat", [False, True])
def test_both_models_get_as_many_positions_in_the_same_order(kinds, chat):
    other = "<<{% for m in messages %}{{ m['role'] }}> {{ m['content'] }}\n\n{% endfor %}reply:\n"
    tokenizers = vocabulary(kinds[0]), vocabulary(kinds[1], begins=True, template=other)
    rows = [ROW, {"id": "b", "prompt": SENTENCES[3], "answer": " 你好 7"}]
    how = CHAT if chat else None
    own, theirs = (
        (tokenizer, encode(rows, tokenizer, max_length=500, chat=how, who=who))
        for tokenizer, who in zip(tokenizers, ("student", "teacher"), strict=True)
    )
    student, teacher = met(rows, own, theirs, how)
    for positions in ("answer", "all"):
        counts = position_counts(student, positions)
        assert counts == position_counts(teacher, positions)
        assert min(counts) >= 2
        for side in (student, teacher):
            batch = collate(side, [1, 0])
            assert position_mask(batch, positions).sum(1).tolist() == counts[::-1]
    assert position_counts(student.select([1]), "all") == position_counts(student, "all")[1:]


def test_what_is_said_in_a_template_meets_and_its_own_words_do_not():
    one, other = SPELLINGS["characters", False], SPELLINGS["byte_bpe", False]
    texts = "[user] Ada has\n[assistant] ", "<<user>>  Ada has reply:"
    found = [
        marks(spelling, *_chatted(spelling, text), prompt=text, answer=" 3", parts=["Ada has"])
        for spelling, text in zip((one, other), texts, strict=True)
    ]
    shared = [found[0][position] for position, _ in pairs(*found)]
    assert {mark[0] for mark in shared if mark} == {1, ASKED, ASKED + 1, ENDS}
    assert max(end for part, end in filter(None, shared) if part == 1) == len("Ada has")


def _chatted(spelling: Spelling, text: str) -> tuple[list[int], int]:
    prompt, answer = (spelling.tokenizer(part)["input_ids"] for part in (text, " 3"))
    return [*prompt, *answer, spelling.tokenizer.eos_token_id], len(prompt)


def test_special_tokens_meet_by_their_role():
    assert marked(SPELLINGS["byte_bpe", True], "Ada", " 3")[0] == (BEGINS, 0)
    sides = [marked(SPELLINGS[kind, True], "Ada", " 3") for kind in ("byte_bpe", "unigram")]
    assert pairs(*sides)[0] == (0, 0)
    alone = [marked(SPELLINGS["byte_bpe", begins], "", "Ada has 12 apples") for begins in (True, False)]
    assert alone[0][0] == (ASKED, 0)  # it predicts the text's first token
    assert alone[0] == alone[1]


def test_a_share_of_the_meetings_stays_on_both_sides_by_rows_and_seed():
    rows = [
        {"id": f"{n}", "prompt": f"{n} and {n}?", "answer": " 12 apples, 34 pears" * (n % 4)}
        for n in range(200)
    ]
    sides = [vocabulary(kind) for kind in ("byte_bpe", "unigram")]
    whole = met(rows, *((tokenizer, encode(rows, tokenizer, max_length=512)) for tokenizer in sides))
    some = thinned(rows, whole, 0.3, 5)
    for before, after, other in zip(
        zip(*(side.met for side in whole), strict=True), *(side.met for side in some), strict=True
    ):
        assert set(zip(after, other, strict=True)) <= set(zip(*before, strict=True))
    assert some[0].follows is some[1].follows
    assert [len(own) for own in some[0].follows] == [len(own) for own in some[0].met]
    behind = [
        dict(zip(own, after, strict=True)) for own, after in zip(whole[0].met, whole[0].follows, strict=True)
    ]
    for own, after, found in zip(some[0].met, some[0].follows, behind, strict=True):
        assert [found[position] for position in own] == after
    counts = [sum(map(len, side.met)) for side in (whole[0], some[0])]
    assert counts[1] / counts[0] == pytest.approx(0.3, abs=0.03)
    assert (
        list(thinned(rows[::-1], tuple(side.select(range(199, -1, -1)) for side in whole), 0.3, 5)[0].met)
        == list(some[0].met)[::-1]
    )
    assert list(thinned(rows, whole, 0.3, 6)[0].met) != list(some[0].met)


def test_one_tokenizer_meets_itself_everywhere():
    for spelling in SPELLINGS.values():
        ids, _ = row(spelling, ROW["prompt"], ROW["answer"])
        found = marked(spelling, ROW["prompt"], ROW["answer"])
        assert sum(mark is not None for mark in found) >= len(ids) - 1  # but for a space before the text


def test_a_tokenizer_that_cannot_say_where_tokens_are_is_refused():
    class Slow:
        backend_tokenizer = None

    with pytest.raises(RequestError, match=r"the teacher's tokenizer \(Slow\) does not say where"):
        Spelling.of(Slow(), "teacher")


def test_what_stands_in_a_template_too_has_no_marks():
    spelling = SPELLINGS["byte_bpe", False]
    prompt = "<|user|>\nuser"
    ids, length = row(spelling, prompt, " 3")
    found = marks(spelling, ids, length, prompt=prompt, answer=" 3", parts=["user"])
    assert all(mark is None or mark[0] == BEGINS or mark[0] >= ASKED for mark in found)
