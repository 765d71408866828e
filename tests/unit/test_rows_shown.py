"""pkt rows: every token, what is supervised, lengths and overlaps; nothing is computed or kept in the store."""

from __future__ import annotations

import json

import pytest

from pkt.stages.rows import pieces
from tiny import tiny_tokenizer


@pytest.mark.parametrize("text", ["Ada has 3 apples.", "größer, 你好 und 🙂!", " a\n\n  b", "x"])
def test_pieces_are_the_text(text):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text)["input_ids"]
    found = list(pieces(tokenizer, ids))
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_rows_are_shown_as_they_are_trained_on(pkt, tiny_request):
    done = pkt("rows", *tiny_request, "rows.show=1", "rows.splits=[train,test]")
    assert done.code == 0, done.err
    (file,) = pkt.outputs.glob("runs/rows/*/rows.json")
    found = json.loads(file.read_text())
    (row,) = found["rows"]["train"]
    cut = row["prompt_tokens"]
    assert "".join(row["tokens"][:cut]).endswith("Result:")
    answer = "".join(row["tokens"][cut:])
    assert answer.endswith("</s>")
    assert f"⟦{answer}⟧" in done.out
    lengths = found["lengths"]["train"]
    assert lengths["rows"] == 16
    assert 0 < lengths["share"] < 1
    assert lengths["longest"] >= lengths["median"] >= lengths["supervised"]
    assert "test custom" in found["lengths"]
    assert not list((pkt.outputs / "store").glob("transfer/*"))


def test_overlap_and_rows_that_are_too_long_are_told(pkt, tiny_request, pair):
    words = [word for word in tiny_request if not word.startswith("data.test=")]
    done = pkt("rows", *words, f"data.test={pair['root'] / 'train.jsonl'}")
    assert done.code == 0, done.err
    assert "rows are also in train" in done.err
    (file,) = pkt.outputs.glob("runs/rows/*/rows.json")
    assert any("also in train" in note for note in json.loads(file.read_text())["notes"])
    short = pkt("rows", *tiny_request, "data.max_length=5")
    assert short.code == 2
    assert "context" in short.err
    assert "data.too_long=leave_out" in short.err


def test_rows_that_are_too_long_or_too_many_are_left_out_and_told(pkt, tiny_request, tmp_path):
    texts = [f"Ada has {i} apples. How many?\nResult:" for i in range(40)]
    rows = [{"prompt": text * (9 if i % 8 == 0 else 1), "answer": f" {i}"} for i, text in enumerate(texts)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    own = ("data.extract", "data.align", "data.train", "data.validation", "data.sizes")
    words = [word for word in tiny_request if not word.startswith(own)]
    words += [f"data.train={file}", "data.sizes.train=20", "data.max_length=40", "data.too_long=leave_out"]
    done = pkt("rows", *words)
    assert done.code == 0, done.err
    assert "mine.jsonl: 5 of 40 rows have more than 40 tokens" in done.err
    assert (
        "custom/train: 3 of 23 rows are not used (data.sizes.train=20); data.sizes.train=23 takes" in done.err
    )
    (kept,) = pkt.outputs.glob("runs/rows/*/rows.json")
    assert json.loads(kept.read_text())["lengths"]["train"]["rows"] == 20


def test_prompts_without_labels_are_shown_as_the_teacher_reads_them(pkt, tiny_request, pair):
    asked = f"data.unlabelled={pair['root'] / 'test.jsonl'}"
    done = pkt("rows", *tiny_request, asked, "rows.splits=[unlabelled]", "rows.show=1")
    assert done.code == 0, done.err
    (kept,) = pkt.outputs.glob("runs/rows/*/rows.json")
    found = json.loads(kept.read_text())
    assert found["lengths"]["unlabelled"]["supervised"] == 0
    (row,) = found["rows"]["unlabelled"]
    assert row["prompt_tokens"] == len(row["tokens"])
    assert "".join(row["tokens"]).endswith("Result:")


def test_rows_behind_the_labelled_ones_are_not_called_unused(pkt, tiny_request):
    done = pkt("rows", *tiny_request, "data.sizes.train=10", "data.sizes.labelled=4", "data.unlabelled=train")
    assert done.code == 0, done.err
    assert "are not used" not in done.err


def test_long_test_rows_are_shown_and_told(pkt, tiny_request, tmp_path):
    file = tmp_path / "long.jsonl"
    rows = [{"prompt": "Ada has 3 apples. " * times, "answer": " 3"} for times in (1, 40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    words = [word for word in tiny_request if not word.startswith("data.test=")]
    done = pkt("rows", *words, f"data.test={file}", "rows.splits=[unlabelled]")
    assert done.code == 0, done.err
    assert "test custom: 1 of 2 rows have more than" in done.err
    assert "there are no prompts without labels" in done.err
