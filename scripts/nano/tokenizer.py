"""The family's tokenizer: byte-level BPE in which 0..99 are single tokens, with or without a leading space.

Longer digit strings fall into pairs from the left. There is no begin token; `<eos>` ends every row and
`<pad>` is another token. Lossless: decoding gives back every byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from nano.corpus import corpus

VOCABULARY_SIZE = 1152
PAD, EOS = "<pad>", "<eos>"
PRE_TOKENS = r" ?\d{1,2}| ?[\p{L}_]+| ?[^\s\p{L}\d_]+|\s+(?!\S)|\s+"


def _training_text(documents: int) -> Iterator[str]:
    numbers = " ".join(["", *(str(n) for n in range(100))])
    joined = "\n".join(str(n) for n in range(100))
    for _ in range(2000):
        yield numbers
        yield joined
    yield from islice(corpus("teacher", seed=0), documents)


def train_tokenizer(documents: int = 20_000) -> Any:
    """Train the tokenizer on the first documents of the teacher's corpus."""
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
        vocab_size=VOCABULARY_SIZE,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(documents), trainer)
    return tokenizer
