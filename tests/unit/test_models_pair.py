"""Two vocabularies beside each other, and the pairs that ship as configs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pkt.config import CheckpointSpec, PairConfig
from pkt.config_files import read_option
from pkt.data.rows import RowTable
from pkt.errors import RequestError
from pkt.methods import readings
from pkt.models.architecture import Architecture
from pkt.models.known_tokens import guard
from pkt.models.pair import check_pair, compare_vocabularies, load_student, read_otherwise
from tiny import tiny_config, tiny_model, tiny_tokenizer

PAIRS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


class Words:
    """A tokenizer reduced to its vocabulary."""

    def __init__(self, words: list[str], added: int = 0) -> None:
        self.words, self.added = words, added

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words) if word}

    @property
    def added_tokens_decoder(self) -> dict[int, str]:
        end = len(self.words)
        return {i: self.words[i] for i in range(end - self.added, end)}


def compare(teacher: Words, student: Words, teacher_rows: int = 320, student_rows: int = 320, **config):
    return compare_vocabularies(
        teacher,
        student,
        tiny_config("gemma2", vocab=teacher_rows, tied=True, **config),
        tiny_config("llama", vocab=student_rows),
    )


def test_a_teacher_may_write_tokens_that_it_may_not_be_given():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    unknown = torch.tensor([[max(tokenizer.get_vocab().values()) + 1]])
    model.resize_token_embeddings(int(unknown) + 8)
    guard(Architecture.of(model), tokenizer)
    with torch.no_grad():
        read = model(torch.tensor([[5, 6]]), use_cache=True)
        model(unknown, past_key_values=read.past_key_values)
        with pytest.raises(RequestError, match="the teacher's tokenizer has no such token"):
            model(unknown)


def test_a_tokenizer_that_cannot_read_every_text_is_compared_by_the_others():
    backend = Tokenizer(models.WordLevel({"<eos>": 0, "Hello": 1, "HELLO": 2, "heLLo": 3}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    narrow, other = (PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>") for _ in range(2))
    config = SimpleNamespace(vocab_size=4)
    assert compare_vocabularies(narrow, other, config, config).differ == ""


@pytest.mark.parametrize("way", ["digits", "bos"])
def test_equal_tokens_that_are_read_otherwise_are_two_vocabularies(way):
    plain, other = tiny_tokenizer(), tiny_tokenizer(bos=way == "bos")
    if way == "digits":
        backend = other.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=False), backend.pre_tokenizer]
        )
    assert plain.get_vocab() == other.get_vocab()
    config = SimpleNamespace(vocab_size=len(plain.get_vocab()))
    found = compare_vocabularies(other, plain, config, config)
    assert "the tokens are the same, but" in found.differ
    assert len(found.teacher_ids) == 0
    same = compare_vocabularies(plain, tiny_tokenizer(), config, config)
    assert (same.differ, len(same.teacher_ids)) == ("", len(plain.get_vocab()))


@pytest.mark.parametrize(("texts", "told"), [(["qqqq a", "b c"], True), (["b c"], False)])
def test_rows_show_what_fixed_texts_do_not(monkeypatch, texts, told):
    plain, other = tiny_tokenizer(), tiny_tokenizer()
    other.backend_tokenizer.normalizer = normalizers.Replace("qqqq", "b")  # stands in none of the fixed texts
    assert read_otherwise(other, plain) == ""
    said: list[str] = []
    bench = SimpleNamespace(
        pair_report=SimpleNamespace(warnings=()),
        pair=SimpleNamespace(student=SimpleNamespace(init="load"), teacher=None),
        one_vocabulary=True,
        cache_dir=None,
        chat=None,
        tokenizer=plain,
        splits={"train": RowTable(rows=tuple({"prompt": text, "answer": "!"} for text in texts))},
        note=lambda *sentences: said.extend(sentences),
    )
    monkeypatch.setattr(readings, "load_tokenizer", lambda *_args, **_more: other)
    readings.tell(bench)
    assert [sentence[:47] for sentence in said] == ["train: 1 of 2 texts are read as different ones:"][:told]


def test_equal_vocabularies_with_padding_rows():
    words = [f"w{i}" for i in range(300)]
    report = compare(Words(words), Words(words), teacher_rows=320, student_rows=304)
    torch.testing.assert_close(report.teacher_ids, torch.arange(300))


def test_head_with_fewer_rows_than_tokens():
    words = [f"w{i}" for i in range(300)]
    report = compare(Words(words), Words(words), teacher_rows=320, student_rows=290)
    assert len(report.teacher_ids) == 290


def test_one_more_added_token_is_allowed():
    words = [f"w{i}" for i in range(300)]
    report = compare(Words([*words, "[PAD]"], added=1), Words(words), teacher_rows=301, student_rows=300)
    torch.testing.assert_close(report.teacher_ids, torch.arange(300))
    assert any("the teacher has 301 tokens, the student 300" in note for note in report.warnings)


def test_holes_are_not_shared():
    words = ["a", "", "c"]
    report = compare(Words(words), Words(words))
    assert report.teacher_ids.tolist() == [0, 2]


def test_soft_cap_is_noted():
    words = ["a", "b"]
    report = compare(Words(words), Words(words), final_logit_softcapping=30.0)
    assert any("teacher soft-caps its logits at 30" in note for note in report.warnings)


def test_differing_tokens_are_counted_and_shown():
    teacher, student = [f"w{i}" for i in range(20)], [f"w{i}" if i < 13 else f"x{i}" for i in range(20)]
    report = compare(Words(teacher), Words(student))
    assert report.differ.startswith("7 of 20 token ids differ: id 13: teacher 'w13', student 'x13'; ")
    assert report.differ.count("; id ") == 1
    assert len(report.teacher_ids) == len(report.student_ids) == 0


@pytest.mark.parametrize("longer", ["teacher", "student"])
def test_ordinary_tokens_beyond_the_other_make_two_vocabularies(longer):
    words = [f"w{i}" for i in range(20)]
    models = {"teacher": Words(words), "student": Words(words)} | {longer: Words([*words, "more"])}
    report = compare(models["teacher"], models["student"])
    assert report.differ == f"the {longer} has 1 tokens that the other lacks: id 20: 'more'"


def test_check_pair_reads_no_weights(tmp_path):
    for who, vocab in (("teacher", 320), ("student", 320), ("other", 280)):
        tiny_model("llama", vocab=320, depth=1).config.save_pretrained(tmp_path / who)
        tiny_tokenizer(vocab).save_pretrained(tmp_path / who)
    specs = {who: CheckpointSpec(checkpoint=str(tmp_path / who)) for who in ("teacher", "student", "other")}
    report = check_pair(PairConfig(name="p", teacher=specs["teacher"], student=specs["student"]))
    assert len(report.teacher_ids) == 320
    other = check_pair(PairConfig(name="p", teacher=specs["teacher"], student=specs["other"]))
    assert other.differ.startswith("the teacher has 40 tokens that the other lacks")
    cut = CheckpointSpec(init="prune", layers=[1])
    assert len(check_pair(PairConfig(name="p", teacher=specs["teacher"], student=cut)).teacher_ids) == 320


def test_there_are_pairs():
    assert {path.stem for path in PAIRS} >= {"nano", "nano-code", "llama-13b-to-7b", "smollm2-135m-to-pruned"}


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_pair_configs_fit_the_schema(path):
    content = read_option(path.stem, {path.stem: path})  # without what it chooses of other groups
    pair = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PairConfig), content))
    assert isinstance(pair, PairConfig)
    assert pair.name == path.stem
    assert pair.teacher.checkpoint
    assert pair.student.init == ("prune" if pair.student.checkpoint is None else "load")
    assert all(s.dtype in ("auto", "float32", "bfloat16") for s in (pair.teacher, pair.student))


def test_tokens_that_stand_in_every_row_need_an_embedding(tmp_path):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "[END]"})  # without resizing
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = CheckpointSpec(checkpoint=str(tmp_path), dtype="float32")
    with pytest.raises(
        RequestError, match=r"the token '\[END\]' \(id \d+\) of its tokenizer stands in every row"
    ):
        load_student(PairConfig(name="p", teacher=spec, student=spec), None, "cpu")
