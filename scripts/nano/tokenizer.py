"""The family's two tokenizers: byte-level BPE for all models but one, and pieces, which share little with it.

- ``bytes``: byte-level BPE in which 0..99 are single tokens, with or without a leading space. Longer digit strings fall
  into pairs from the left.
- ``pieces``: BPE over characters, as SentencePiece makes it for Llama 2: spaces are written ▁, digits stand alone, and
  what no piece has falls into bytes.

In both there is no begin token; `<eos>` ends every row and `<pad>` is another token. Lossless: decoding gives back
every byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from nano.corpus import corpus

SIZES = {"bytes": 1152, "pieces": 640}
PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
PRE_TOKENS = r" ?\d{1,2}| ?[\p{L}_]+| ?[^\s\p{L}\d_]+|\s+(?!\S)|\s+"

PIECES = r"▁?\d|▁?[\p{L}_]+|▁?[^▁\s\p{L}\d_]+|▁+|\s+"


def _training_text(documents: int) -> Iterator[str]:
    numbers = " ".join(["", *(str(n) for n in range(100))])
    joined = "\n".join(str(n) for n in range(100))
    for _ in range(2000):
        yield numbers
        yield joined
    yield from islice(corpus("teacher", seed=0), documents)


def train_tokenizer(kind: str, documents: int = 20_000) -> Any:
    """Train a tokenizer on the first documents of the teacher's corpus."""
    return {"bytes": _train_bytes, "pieces": _train_pieces}[kind](documents)


def _train_bytes(documents: int) -> Any:
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(PAD, special=True), AddedToken(EOS, special=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["bytes"],
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(documents), trainer)
    return tokenizer


def _train_pieces(documents: int) -> Any:
    def dressed(model: Any) -> Any:
        tokenizer: Any = Tokenizer(model)
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        return tokenizer

    first = [PAD, EOS, UNKNOWN, *(f"<0x{byte:02X}>" for byte in range(256))]
    learned = dressed(models.BPE())
    learned.train_from_iterator(
        _training_text(documents),
        trainers.BpeTrainer(vocab_size=SIZES["pieces"] - len(first), show_progress=False),
    )
    found = json.loads(learned.to_str())["model"]
    pieces = sorted(found["vocab"], key=found["vocab"].get)
    vocabulary = {token: index for index, token in enumerate([*first, *pieces])}
    merges = [tuple(pair) for pair in found["merges"]]
    tokenizer = dressed(models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (PAD, EOS, UNKNOWN)])
    return tokenizer
