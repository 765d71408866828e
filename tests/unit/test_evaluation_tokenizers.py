"""Answers' tokens under tokenizers of different kinds: the same in training, in pkt's scores and in lm-eval's own."""

from __future__ import annotations

import json
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import suite_files as files
from pkt.config import BenchmarkConfig
from pkt.data.encoding import encode, encode_answers
from pkt.evaluation.quiet import quiet
from pkt.tasks.grading import options
from scoring import rows_of, scored
from tiny import tiny_model, tiny_tokenizer

SPECIAL = ["<pad>", "<s>", "</s>"]
CORPUS = [
    *(f"Answer: {letter}\nAnswer: {letter}" for letter in "ABCD" * 8),
    *(f"def f{n}(x):\n    if x:\n        return x + {n}\n    return {n}\n" for n in range(40)),
    "The following are multiple choice questions (with answers) about anatomy.\n\nred green blue grey",
]


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@lru_cache(maxsize=1)
def _trained() -> str:
    """Train on words, as SentencePiece does, and add the runs of spaces that Llama 2 has first among its merges."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=560,
        special_tokens=[*SPECIAL, *BYTES],
        initial_alphabet=[chr(code) for code in range(33, 127)] + ["▁"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([line for text in CORPUS for line in text.split("\n")], trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(SPECIAL)]  # bytes are tokens like others
    for half in ("▁", "▁▁"):
        content["model"]["vocab"][half + half] = len(content["model"]["vocab"])
    content["model"]["merges"] = [["▁", "▁"], ["▁▁", "▁▁"], *content["model"]["merges"]]
    return json.dumps(content)


def sentence_piece(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that puts a space before a text: as Llama 2's file does it, or as newer files do."""
    tokenizer = Tokenizer.from_str(_trained())
    tokenizer.pre_tokenizer = None
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=kind, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


KINDS = ("prepend", "always", "first", "bytes", "bytes and a space")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    if not request.param.startswith("bytes"):
        return sentence_piece(request.param)
    found = tiny_tokenizer(bos=True)
    if request.param.endswith("space"):
        found.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return found


def test_these_tokenizers_differ_in_what_stands_before_a_text():
    alone = {kind: sentence_piece(kind).tokenize(" A") for kind in ("prepend", "always", "first")}
    assert alone == {"prepend": ["▁▁", "A"], "always": ["▁A"], "first": ["▁A"]}
    assert all(sentence_piece(kind).tokenize("Answer: A")[-1] == "▁A" for kind in alone)
    indented = sentence_piece("prepend")
    assert indented.decode(indented("    return", add_special_tokens=False)["input_ids"]) == "    return"
    assert len("".join(indented.tokenize("    return"))) == len("    return") + 1


def test_answers_get_no_space_of_their_own(tokenizer: Any):
    texts = [" A", "    return x", "return x", "\n```python\nx\n```", " red\n    green", ")"]
    lead = "(red:"
    for text, ids in zip(texts, encode_answers(tokenizer, texts), strict=True):
        before = tokenizer(lead)["input_ids"]
        assert tokenizer.decode(before + ids, skip_special_tokens=True).endswith(lead + text)
    assert encode_answers(tokenizer, []) == []


def test_a_text_behind_no_prompt_begins_as_any_document(tokenizer: Any):
    for text in ("Answer: A", " A", "    return x"):
        assert encode_answers(tokenizer, [text, text], ["", "Q:"]) == [
            tokenizer(text, add_special_tokens=False)["input_ids"],
            *encode_answers(tokenizer, [text]),
        ]
        encoded = encode([{"id": "t", "prompt": "", "answer": text}], tokenizer, max_length=99)
        assert encoded.input_ids[0] == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def mmlu(tmp_path: Any) -> list[dict[str, Any]]:
    place = files.write(tmp_path / "test.jsonl", files.mmlu(6, "anatomy"))
    return rows_of("mmlu", benchmark=BenchmarkConfig(name="mmlu", tasks=["mmlu"], data_dir=str(place)))


def test_letters_are_scored_as_lm_eval_scores_them(tokenizer: Any, tmp_path: Any):
    rows = mmlu(tmp_path)
    model = tiny_model(depth=2, vocab=len(tokenizer), context=512)
    found = scored(model, tokenizer, ["mmlu"], rows={"mmlu": rows}).samples["mmlu"]
    with quiet():
        from lm_eval.models.huggingface import HFLM

        theirs = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=4)
        pairs = [(row["prompt"], f" {letter}") for row in rows for letter in "ABCD"]
        wanted = theirs.loglikelihood([SimpleNamespace(args=pair) for pair in pairs], disable_tqdm=True)
    values = [value for value, _ in wanted]
    assert [value for record in found for value in record["loglikelihoods"]] == pytest.approx(
        values, abs=1e-3
    )
    assert len(set(values)) > 12


def test_letters_are_trained_on_as_they_are_scored(tokenizer: Any, tmp_path: Any):
    rows = mmlu(tmp_path)
    encoded = encode(rows, tokenizer, max_length=512)
    for row, ids in zip(rows, encoded.input_ids, strict=True):
        assert ids == [*tokenizer(row["prompt"] + row["answer"])["input_ids"], tokenizer.eos_token_id]


def test_choices_of_pkts_own_are_scored_as_lm_eval_scores_them(tokenizer: Any):
    model = tiny_model(depth=2, vocab=len(tokenizer), context=512)
    found = scored(model, tokenizer, ["nano_knowledge"], limit=6).samples["nano_knowledge"]
    with quiet():
        from lm_eval.models.huggingface import HFLM

        theirs = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=4)
        docs = rows_of("nano_knowledge")[:6]
        pairs = [(doc["prompt"], option) for doc in docs for option in options(doc)]
        wanted = theirs.loglikelihood([SimpleNamespace(args=pair) for pair in pairs], disable_tqdm=True)
    values = [value for record in found for value in record["loglikelihoods"]]
    assert values == pytest.approx([value for value, _ in wanted], abs=1e-3)
