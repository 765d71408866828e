"""Small tokenizers of every kind, trained in memory, and the same text in many scripts."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)  # fmt: skip
from transformers import PreTrainedTokenizerFast

from tiny import CHAT_TEMPLATE

UNKNOWING = (
    "unigram",
    "metaspace",
    "wordpiece",
    "characters",
)  # kinds with a token for what they do not know
KINDS = ("byte_bpe", "piece_bpe", "unigram", "metaspace", "wordpiece", "characters")
SENTENCES = (
    "Ada has 12 apples. How many apples has Ben?\nResult:",
    "def f(x):\n    return x + 3 * 9\n",
    "Größe, naïve café, Łódź; ÅNGSTRÖM",
    "Привет, мир! Сколько яблок у Ани?",
    "你好，世界。苹果有十二个。東京タワー",
    "مرحبا بالعالم، كم تفاحة؟",
    "नमस्ते दुनिया, कितने सेब?",
    "สวัสดีชาวโลก 한국어 텍스트입니다",
    "🙂🙃👩‍👩‍👧 and ﬁne ½ e\u0301",
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _spaces(tokenizer: Any, *, prefix: bool) -> None:
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if prefix else []), normalizers.Replace(" ", "▁")]
    )
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )


def _byte_bpe(names: list[str]) -> Any:
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def _piece_bpe(names: list[str]) -> Any:
    """As Llama 2's: a space before every text, bytes for what no piece has."""
    tokenizer: Any = Tokenizer(models.BPE(unk_token=names[0], byte_fallback=True, fuse_unk=True))
    _spaces(tokenizer, prefix=True)
    trainer = trainers.BpeTrainer(
        vocab_size=440, special_tokens=[*names, *BYTES], show_progress=False, limit_alphabet=70
    )
    tokenizer.train_from_iterator(
        [f"▁{sentence.replace(' ', '▁')}" for sentence in SENTENCES[:4] * 3], trainer
    )
    known = json.loads(tokenizer.to_str())["added_tokens"]
    assert known  # bytes were trained as special tokens, and have to be ordinary ones
    whole = json.loads(tokenizer.to_str())
    whole["added_tokens"] = [token for token in known if token["content"] in names]
    return Tokenizer.from_str(json.dumps(whole))


def _unigram(names: list[str]) -> Any:
    """As Gemma's spaces, with SentencePiece's usual normalisation and bytes for what no piece has."""
    tokenizer: Any = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?[\p{L}\p{M}]+|▁?\p{N}+|▁|."), "isolated")
    _spaces(tokenizer, prefix=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=160, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES[:5] * 3, trainer)
    learned = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["vocab"] if pair[0] != "<unk>"]
    first = [*names, "<unk>", *BYTES]
    vocabulary = [*((name, -30.0) for name in first), *learned]
    tokenizer.model = models.Unigram(vocabulary, unk_id=len(names), byte_fallback=True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")])
    return tokenizer


def _metaspace(names: list[str]) -> Any:
    """As T5's: SentencePiece's usual normalisation, a space before every text, and no bytes for what no piece has."""
    tokenizer: Any = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=160, unk_token="<unk>", special_tokens=[*names, "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES[:5] * 3, trainer)
    return tokenizer


def _wordpiece(names: list[str]) -> Any:
    """As BERT's: lower case, no accents, spaces thrown away."""
    tokenizer: Any = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=[*names, "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


def _characters(names: list[str]) -> Any:
    letters = sorted(set("".join(SENTENCES)))
    vocabulary = {name: i for i, name in enumerate([*names, "<unk>", *letters])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


@lru_cache(maxsize=16)
def _made(kind: str, begins: bool) -> str:
    names = ["<pad>", "<s>", "</s>"] if kind != "unigram" else ["<pad>", "</s>", "<s>"]
    makers = {
        "byte_bpe": _byte_bpe, "piece_bpe": _piece_bpe, "unigram": _unigram, "metaspace": _metaspace,
        "wordpiece": _wordpiece, "characters": _characters,
    }  # fmt: skip
    tokenizer = makers[kind](names)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return str(tokenizer.to_str())


def vocabulary(kind: str, *, begins: bool = False, template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """Return a tokenizer.

    Args:
        kind: one of `KINDS`.
        begins: whether it puts <s> before every text.
        template: its chat template.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_made(kind, begins)), unk_token="<unk>" if kind in UNKNOWING else None,
        pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=template,
    )  # fmt: skip
