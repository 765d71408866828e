"""What the user is told of rows: counted, with an example, once, and in the report too."""

from __future__ import annotations

import json

import pytest
from tokenizers import normalizers

import suite_files as files
from pkt.config import BenchmarkConfig, DataConfig
from pkt.data import notes
from pkt.data.encoding import encode
from pkt.data.lengths import Fitting
from pkt.tasks.base import Given
from pkt.tasks.splits import load_splits
from tiny import tiny_tokenizer
from vocabularies import vocabulary


def row(name, prompt="Q: Why?\nA:", answer=" so", **more):
    return {"id": name, "prompt": prompt, "answer": answer, **more}


def test_rows_that_are_in_another_split_are_counted_without_regard_to_white_space():
    held = [row("a"), row("b", "Q: Who?\nA:", " Ada")]
    rows = [
        row("x", "Q: Why? A: ", "so"),
        row("y", "Q:\tWho?\n\nA:", " Ben"),
        row("z", "Q: When?\nA:", " now"),
    ]
    (told,) = notes.overlap("test", rows, "train", held)
    assert told.startswith(
        "test: 1 of 3 rows are also in train (row 'x'); "
        "1 of 3 rows have a prompt of train with another answer (row 'y')"
    )
    assert list(notes.overlap("test", rows[2:], "train", held)) == []
    texts = [row(str(n), "", f"text {n}") for n in range(4)]
    assert list(notes.overlap("test", texts[:2], "train", texts[2:])) == []  # texts have no prompt in common
    (told,) = notes.overlap("test", texts[:3], "train", texts[2:])
    assert told.startswith("test: 1 of 3 rows are also in train (row '2'), white")


def test_prompts_that_are_asked_of_the_teacher_too_are_counted():
    rows = [row("x", "Q: Why? A: "), row("y", "Q: Who?\nA:")]
    (told,) = notes.asked_too("test", rows, ["Q:\tWhy?\nA:", "Q: When?"], "the prompts")
    assert told.startswith(
        "test: 1 of 2 rows have a prompt that is also among the prompts (white space aside; row 'x')"
    )
    assert list(notes.asked_too("test", rows[1:], ["Q: Why?\nA:"], "the prompts")) == []


@pytest.mark.parametrize("kind", ["wordpiece", "characters"])
def test_answers_that_a_tokenizer_does_not_know_are_counted(kind: str):
    tokenizer = vocabulary(kind)
    rows = [row("a", answer=" apples"), row("b", answer=" \u4e2d\u6587"), row("c", "", "\u4e2d")]
    known, lost = [rows[0]], [rows[1], rows[2]]
    assert list(notes.unwritable("train", known, tokenizer, "student")) == []
    (told,) = notes.unwritable("train", known + lost, tokenizer, "student")
    assert told.startswith("train: 2 of 3 answers hold text that the student's tokenizer does not know")
    assert list(notes.unwritable("train", known + lost, vocabulary("byte_bpe"), "student")) == []


def test_unusual_answers_are_counted():
    rows = [
        row("a"),
        row("b", answer="so"),
        row("c", answer=" \n"),
        row("d", "def f():\n", "x"),
        row("e", answer=")"),
    ]
    blank, joined = notes.unusual("train", rows)
    assert blank.startswith("train: 1 of 5 answers are blank (row 'c': ")
    assert joined.startswith("train: 1 of 5 answers begin without white space ")
    assert "(row 'b': 'Q: Why?\\nA:' | 'so')" in joined
    assert list(notes.unusual("train", [rows[0], rows[3], row("f", "問題", "答え")])) == []


@pytest.mark.parametrize("answer", ["so", "é", "да", "ναι", "نعم", "כן", "हाँ", "네"])
def test_words_run_into_each_other_in_every_script_with_spaces(answer):
    (told,) = notes.unusual("train", [row("a", answer=answer), row("b", answer=f" {answer}")])
    assert "1 of 2 answers begin without white space" in told


@pytest.mark.parametrize("answer", ["答え", "の", "ใช่", "ແມ່ນ", "បាទ", "２"])
def test_scripts_without_spaces_are_not_told(answer):
    assert list(notes.unusual("train", [row("a", answer=answer)])) == []


def test_prompts_that_end_inside_a_token_are_counted():
    tokenizer = tiny_tokenizer(bos=True)
    rows = [row("a", "Ada has 3 ", "apples"), row("b", "Ada has 3", " apples"), row("c", "Ada ha", "s 3")]
    encoded = encode(rows, tokenizer, max_length=64)
    (told,) = notes.inside_tokens("train", rows, encoded, tokenizer)
    assert told.startswith("train: 2 of 3 prompts end inside a token (row 'a': 'Ada has 3 ' | 'apples'): ")
    texts = [row("t", "", "Ada has 3 apples"), row("u", "", " 3")]  # behind BOS, as any document
    assert list(notes.inside_tokens("train", texts, encode(texts, tokenizer, max_length=64), tokenizer)) == []


def test_train_rows_that_are_scored_are_counted(tmp_path):
    files.write(tmp_path / "train.jsonl", files.gsm8k(40))
    files.write(tmp_path / "test.jsonl", files.gsm8k(6, start=37))
    fitting = Fitting(tokenizers=lambda: [tiny_tokenizer()], max_length=512)
    given = BenchmarkConfig(name="gsm8k", tasks=["gsm8k"], data_dir=str(tmp_path))
    load_splits(Given(benchmark=given, data=DataConfig(), fitting=fitting))
    assert list(notes.left_out(fitting)) == [
        "gsm8k/train: 3 of 40 rows are also scored, and are left out before the splits are drawn."
    ]


def test_answers_that_are_longer_than_what_is_generated_are_counted():
    tokenizer = tiny_tokenizer()
    rows = [row("a", answer=" so"), row("b", answer=" because Ada has 3 apples and Ben has 12")]
    long = len(tokenizer(rows[1]["answer"])["input_ids"])
    assert list(notes.unreachable("custom/test", rows, tokenizer, long)) == []
    (told,) = notes.unreachable("custom/test", rows, tokenizer, long - 1)
    assert told.startswith(
        f"custom/test: 1 of 2 answers have more than the {long - 1} tokens that are generated (up to {long})"
    )


def test_only_scored_rows_that_are_in_train_were_trained_on():
    rows = [row("a")]
    for name, other, expected in (
        ("custom/test", "train", True),
        ("custom/test", "align", False),
        ("validation", "train", False),
    ):
        assert notes.trained_on(notes.overlap(name, rows, other, rows)) is expected
    near = [row("a") | {"answer": "another"}]
    assert not notes.trained_on(notes.overlap("custom/test", near, "train", rows))
    assert not notes.trained_on([])


@pytest.mark.slow
def test_everything_is_told_once_and_kept(pkt, pair, tmp_path, tiny_request):
    rows = [json.loads(line) for line in (pair["root"] / "train.jsonl").read_text().splitlines()]
    for one in rows[1::2]:
        one["answer"] = one["answer"].strip()
    for one in rows[3::4]:
        one["prompt"] = "Ada has "
    train, test = tmp_path / "own.jsonl", tmp_path / "own_test.jsonl"
    train.write_text("".join(json.dumps(one) + "\n" for one in rows))
    test.write_text("".join(json.dumps(one) + "\n" for one in rows[:3]) + json.dumps(row("new")) + "\n")
    words = [word for word in tiny_request if not word.startswith(("data.train=", "data.test="))]
    told = pkt("run", *words, f"data.train={train}", f"data.test={test}", "method=sft", "objective=ce")
    assert told.code == 0, told.err
    (scores,) = pkt.outputs.rglob("runs/**/scores.json")
    kept = json.loads(scores.read_text())["notes"]
    for said in (
        " rows are also in train ",
        " answers begin without white space ",
        " prompts end inside a token ",
    ):
        assert any(said in note for note in kept)
    assert all(told.err.count(note) == 1 for note in kept)
    page = (scores.parent / "report.html").read_text(encoding="utf-8")
    assert "Notes on rows and answers" in page
    assert "learnt by heart" in page
    assert "some of these rows were trained on: see the warnings" in told.err + told.out


@pytest.mark.parametrize("way", ["lower case", "letters that are dropped"])
def test_answers_that_a_tokenizer_cannot_write_back_are_counted(way):
    tokenizer = tiny_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Lowercase() if way == "lower case" else normalizers.Replace("\u65e5", "")
    rows = [row("a", answer=" apples 3"), row("b", answer=" Ben \u65e5"), row("c", answer=" two")]
    (told,) = notes.unwritable("train", rows, tokenizer, "student")
    assert told.startswith(
        "train: 1 of 3 answers are others once the student's tokenizer has read and written them (row 'b'"
    )
    assert list(notes.unwritable("train", rows, tokenizer, "teacher")) == []  # it has not to write them
    assert list(notes.unwritable("train", [], tokenizer, "student")) == []
    assert list(notes.unwritable("train", rows, tiny_tokenizer(), "student")) == []
