"""Tokens of the student's chat template that a teacher lacks are not fed to it."""

from __future__ import annotations

import pytest
import torch

from pkt.config import CheckpointSpec, PairConfig
from pkt.errors import RequestError
from pkt.models.pair import load_teacher
from pkt.models.taps import decode
from tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

TURN = "<|turn|>"
ROWS = 336  # of the teacher: 16 more than its tokenizer has


def talking(known: bool):
    tokenizer = tiny_tokenizer()
    if known:
        tokenizer.add_special_tokens({"additional_special_tokens": [TURN]})
    tokenizer.chat_template = TURN + CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def loaded(tmp_path):
    """Return a function that loads a teacher whose tokenizer may have the turn token, and whose row may be trained."""

    def make(*, known: bool, trained: bool):
        model = tiny_model("llama", vocab=ROWS)
        if not trained:
            with torch.no_grad():
                model.get_input_embeddings().weight[320:] = 0
        model.save_pretrained(tmp_path / "teacher")
        talking(known).save_pretrained(tmp_path / "teacher")
        spec = CheckpointSpec(checkpoint=str(tmp_path / "teacher"), dtype="float32")
        return load_teacher(PairConfig(name="p", teacher=spec, student=spec), None, "cpu")

    return make


def feed(teacher, last: int, masked: bool = False):
    ids = torch.tensor([[5, 6, last]])
    mask = torch.ones_like(ids)
    mask[0, 2] = not masked
    with torch.no_grad():
        return decode(teacher.arch, ids, mask)


def test_a_token_of_the_teacher_is_fed(loaded):
    teacher = loaded(known=True, trained=True)
    assert feed(teacher, 320).shape == (1, 3, 32)
    assert feed(teacher, 0).shape == (1, 3, 32)


@pytest.mark.parametrize(("known", "last"), [(False, 320), (True, 321), (True, ROWS)])
def test_a_padding_row_is_not(loaded, known, last):
    teacher = loaded(known=known, trained=True)
    with pytest.raises(
        RequestError, match=rf"token {last}.*the teacher's tokenizer has no such token.*chat_template"
    ):
        feed(teacher, last)


def test_an_untrained_row_is_not(loaded):
    with pytest.raises(RequestError, match=r"<\|turn\|>.*never trained.*chat_template"):
        feed(loaded(known=True, trained=False), 320)


def test_padding_may_be_anything(loaded):
    assert feed(loaded(known=True, trained=False), 320, masked=True).isfinite().all()
