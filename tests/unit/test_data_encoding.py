"""Token ids of prompts and answers, and their batches."""

from __future__ import annotations

import pytest
import torch

from pkt.data import encoding
from pkt.data.batching import collate, epoch_batches, sorted_batches
from pkt.data.encoding import Encoded, before_text, encode, encode_prompt
from pkt.errors import RequestError
from tiny import CHAT, tiny_tokenizer

ROWS = [
    {"id": "a", "prompt": "Ada has 3 apples.", "answer": " yes"},
    {"id": "b", "prompt": "def f(x):\n", "answer": "    return x + 2"},
]


@pytest.mark.parametrize("bos", [False, True])
def test_prompt_and_answer_are_joined_and_ended(bos):
    tokenizer = tiny_tokenizer(bos=bos)
    encoded = encode(ROWS, tokenizer, max_length=64)
    for row, ids, length in zip(ROWS, encoded.input_ids, encoded.prompt_lengths, strict=True):
        assert ids[:length] == tokenizer(row["prompt"]).input_ids
        assert ids.count(1) == int(bos)
        assert tokenizer.decode(ids[length:-1]) == row["answer"]
        assert ids[-1] == tokenizer.eos_token_id
    assert encoded.lengths == [len(ids) for ids in encoded.input_ids]


def test_chat_template_wraps_the_prompt():
    tokenizer = tiny_tokenizer()
    encoded = encode(ROWS[:1], tokenizer, max_length=128, chat=CHAT)
    prompt = encoded.input_ids[0][: encoded.prompt_lengths[0]]
    assert tokenizer.decode(prompt) == "[user] Ada has 3 apples.\n[assistant] "
    with pytest.raises(RequestError, match="has no chat template"):
        encode(ROWS, tiny_tokenizer(chat=False), max_length=128, chat=CHAT)


def test_bos_is_not_doubled():
    tokenizer = tiny_tokenizer(bos=True)
    assert encode_prompt(tokenizer, "<s>Ada") == encode_prompt(tokenizer, "Ada")


def test_eos_that_a_tokenizer_appends_is_dropped():
    class Appending:
        bos_token, eos_token, eos_token_id = None, "</s>", 2

        def __call__(self, text, *, add_special_tokens):
            ids = tiny_tokenizer()(text).input_ids
            return type("Ids", (), {"input_ids": [*ids, 2] if add_special_tokens else ids})

    assert encode_prompt(Appending(), "Ada") == tiny_tokenizer()("Ada").input_ids
    assert encode_prompt(Appending(), "Ada</s>")[-1] == 2


def test_same_ids_as_the_evaluation_sees():
    """lm-eval's HFLM encodes a prompt with special tokens, unless the text starts with BOS already."""
    from lm_eval.models.huggingface import HFLM

    for bos in (False, True):
        tokenizer = tiny_tokenizer(bos=bos)
        harness = HFLM.__new__(HFLM)
        harness.tokenizer, harness.add_bos_token, harness.custom_prefix_token_id = tokenizer, None, None
        for text in ("Ada has 3 apples.", "<s>Ada"):
            assert encode_prompt(tokenizer, text) == harness.tok_encode(text)


def test_rows_that_do_not_fit():
    tokenizer = tiny_tokenizer()
    prompt = len(tokenizer(ROWS[0]["prompt"]).input_ids)
    answer = len(tokenizer(ROWS[0]["answer"]).input_ids) + 1
    assert encode(ROWS[:1], tokenizer, max_length=prompt + answer).lengths == [prompt + answer]
    with pytest.raises(
        RequestError, match=rf"row 'a': .* exceed the context: {prompt} \+ {answer} tokens of the student, "
    ):
        encode(ROWS[:1], tokenizer, max_length=prompt + answer - 1)
    with pytest.raises(RequestError, match=r"row 'a': .* 1 more of 2 rows are too long"):
        encode(ROWS, tokenizer, max_length=prompt)
    with pytest.raises(RequestError, match=r"prompt alone fills the context.*raise data\.max_length"):
        encode(ROWS[:1], tokenizer, max_length=prompt)


def test_what_cannot_be_predicted_or_ended(monkeypatch):
    tokenizer = tiny_tokenizer()
    rows = [{"id": "a", "prompt": "", "answer": "b"}]
    with monkeypatch.context() as patched:
        patched.setattr(encoding, "encode_prompt", lambda *_: [])  # one that knows none of the letters
        with pytest.raises(RequestError, match="prompt has no tokens"):
            encode([rows[0] | {"prompt": "?"}], tokenizer, max_length=9)
    for bos in (False, True):
        begun, own = encode(rows, tiny_tokenizer(bos=bos), max_length=9), tiny_tokenizer(bos=bos)
        assert begun.prompt_lengths == [1]
        expected = own.eos_token_id if own.bos_token_id is None else own.bos_token_id
        assert begun.input_ids[0][0] == expected == before_text(own)
    tokenizer.eos_token = None
    with pytest.raises(RequestError, match="no EOS token"):
        encode(ROWS, tokenizer, max_length=64)


ENCODED = Encoded(input_ids=[[5, 6, 7, 2], [8, 9, 2], [4, 3, 3, 3, 2]], prompt_lengths=[2, 1, 4])


def test_collate_pads_on_the_right():
    batch = collate(ENCODED, [1, 0]).to("cpu")
    assert batch.input_ids.tolist() == [[8, 9, 2, 0], [5, 6, 7, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.supervised.tolist() == [[True, True, False, False], [False, True, True, False]]
    assert batch.index == [1, 0]
    assert batch.input_ids.dtype == torch.int64


def test_supervised_positions_predict_the_answer_and_eos():
    for row in range(3):
        batch = collate(ENCODED, [row])
        predicted = batch.input_ids[:, 1:][batch.supervised[:, :-1]].tolist()
        assert predicted == ENCODED.input_ids[row][ENCODED.prompt_lengths[row] :]


def test_sorted_batches_are_longest_first():
    assert sorted_batches([3, 9, 4, 9, 1], 2) == [[1, 3], [2, 0], [4]]
    assert sorted_batches([], 2) == []


@pytest.mark.parametrize(("rows", "size"), [(100, 8), (7, 8), (400, 3), (1, 1)])
def test_epoch_batches_hold_each_row_once(rows, size):
    lengths = [(i * 37) % 50 + 1 for i in range(rows)]
    batches = epoch_batches(lengths, size, seed=0, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(rows))
    assert len(batches) == -(-rows // size)
    assert max(map(len, batches)) <= size
    assert batches == epoch_batches(lengths, size, seed=0, epoch=0)


def test_epoch_batches_follow_seed_and_epoch_and_save_padding():
    lengths = [(i * 37) % 50 + 1 for i in range(400)]
    drawn = [epoch_batches(lengths, 8, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in drawn[0])
    assert padded < 1.15 * sum(lengths)
