"""Turn rows into token ids; prompt and answer are tokenised separately, so that no token spans their border.

    [BOS] prompt | answer EOS        positions prompt-1 .. length-2 predict an answer token or EOS

The prompt gets the special tokens that lm-eval's HFLM gives it, so training and scoring see the same ids; BOS (or what
a tokenizer has in its place) comes once, whether the tokenizer adds it, a chat template writes it, or both. Some
tokenizers put a space before every text (Llama 2's); an answer continues a text and gets none. In a chat template the
end is the reply's (see `Chat.end`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pkt.data.chat import Chat
from pkt.data.tokens import Tokens
from pkt.errors import RequestError

VERSION = 6  # raised when the rules below give other token ids for the same rows; part of keys
PREFIX_SPACES = ("▁", "Ġ")  # how tokens write a space
LEADS = ("\n", "=", ":", ")")
NEAR = 8  # tokens among which a prefix would come again


SAME_TOKEN = 1
"""Behind a position at which two models have read the same text, both read a token of the same bytes."""
NEW_WORD = 2
"""Behind it a word of the text begins, or the text ends."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of rows, not padded.

    Attributes:
        input_ids: prompt, answer and EOS of each row.
        prompt_lengths: tokens of each row's prompt, BOS included.
        met: of each row the positions at which another model, with another tokenizer, has read the same text; None: the
            other model reads the same tokens.
        follows: of each of these positions what comes behind it, as `SAME_TOKEN` and `NEW_WORD` added up.
    """

    input_ids: Sequence[list[int]]
    prompt_lengths: list[int]
    met: Sequence[list[int]] | None = None
    follows: Sequence[list[int]] | None = None

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        own = self.input_ids
        return own.lengths if isinstance(own, Tokens) else [len(ids) for ids in own]

    def select(self, rows: Sequence[int]) -> Encoded:
        """Return some of the rows, by index."""
        return Encoded(
            input_ids=Tokens(self.input_ids[row] for row in rows),
            prompt_lengths=[self.prompt_lengths[row] for row in rows],
            met=None if self.met is None else Tokens(self.met[row] for row in rows),
            follows=None if self.follows is None else Tokens(self.follows[row] for row in rows),
        )

    def followed_by(self, other: Encoded) -> Encoded:
        """Return these rows and then others."""
        return Encoded(
            input_ids=Tokens((*self.input_ids, *other.input_ids)),
            prompt_lengths=self.prompt_lengths + other.prompt_lengths,
        )

    def digest(self) -> str:
        """Return 16 hex digits that identify what a model sees of the rows: tokens, borders, order."""
        digest = hashlib.sha256()
        for ids, prompt in zip(self.input_ids, self.prompt_lengths, strict=True):
            digest.update(np.asarray([len(ids), prompt, *ids], dtype="<i8").tobytes())
        return digest.hexdigest()[:16]


def encode(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_length: int,
    chat: Chat | None = None,
    who: str = "student",
) -> Encoded:
    """Tokenise rows; nothing is ever cut off.

    Args:
        rows: with id, prompt and answer.
        tokenizer: of the model; needs an EOS token.
        max_length: tokens that a row may have.
        chat: makes the prompt a user's message, in the tokenizer's own chat template; None leaves it as it is.
        who: has the tokenizer.

    Raises:
        RequestError: a row that is longer, or a tokenizer without EOS or without the chat template asked for.
    """
    rows = list(rows)
    texts = as_read([row["prompt"] for row in rows], tokenizer, chat, who)
    refuse_texts(rows, chat)
    prompts = [encode_prompt(tokenizer, text) for text in texts]
    answers = encode_answers(tokenizer, [row["answer"] for row in rows], [row["prompt"] for row in rows])
    for row, prompt in zip(rows, prompts, strict=True):
        if not row["prompt"] and not prompt:
            prompt.append(before_text(tokenizer))
    end = tokenizer.eos_token_id if chat is None else chat.end(tokenizer)
    input_ids = [[*prompt, *answer, end] for prompt, answer in zip(prompts, answers, strict=True)]
    prompt_lengths = [len(prompt) for prompt in prompts]
    _check([row["id"] for row in rows], input_ids, prompt_lengths, max_length, who)
    return Encoded(input_ids=Tokens(input_ids), prompt_lengths=prompt_lengths)


def refuse_texts(rows: Iterable[Mapping[str, Any]], chat: Chat | None) -> None:
    """Refuse rows without a prompt where prompts are put into a chat template.

    Raises:
        RequestError: there is one.
    """
    bare = next((row["id"] for row in rows if row.get("prompt") == ""), None)
    if chat is not None and bare is not None:
        raise RequestError(
            f"row {bare!r} is a text without a prompt, which no chat template takes: set model.chat_template=false."
        )


def before_text(tokenizer: Any) -> int:
    """Return what stands before a text where the tokenizer adds nothing: BOS, or else EOS, as lm-eval has it."""
    found: int = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return found


def as_read(prompts: Iterable[str], tokenizer: Any, chat: Chat | None, who: str = "student") -> list[str]:
    """Return prompts as a model reads them: in the chat template, where there is one; `who` has the tokenizer.

    Raises:
        RequestError: a tokenizer without EOS or without the chat template asked for.
    """
    if tokenizer.eos_token_id is None:
        raise RequestError(f"the {who}'s tokenizer has no EOS token, which ends every answer; set one.")
    if chat is None:
        return list(prompts)
    if not tokenizer.chat_template:
        raise RequestError(
            f"model.chat_template=true, but the {who}'s tokenizer has no chat template; set it to false."
        )
    return [chat.prompt(tokenizer, prompt) for prompt in prompts]


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """Tokenise a prompt with the BOS that its tokenizer adds, once, and without an EOS at its end."""
    bos, eos = tokenizer.bos_token, tokenizer.eos_token_id
    has_bos = bos is not None and text.lstrip().startswith(bos)
    while has_bos and text.lstrip().startswith(bos + bos):
        text = text.replace(bos, "", 1)
    ids: list[int] = tokenizer(text, add_special_tokens=not has_bos).input_ids
    if ids and ids[-1] == eos and not text.endswith(tokenizer.eos_token):
        ids = ids[:-1]
    if has_bos or ids[:1] not in [[token] for token in ids[1:NEAR]]:
        return ids
    prefix = _prefix(tokenizer)
    return ids[len(prefix) :] if ids[: 2 * len(prefix)] == prefix * 2 else ids


def _prefix(tokenizer: Any) -> list[int]:
    """Return the special tokens that a tokenizer puts before every text, which need not be BOS (GLM's are two)."""
    whole: list[int] = tokenizer("a", add_special_tokens=True).input_ids
    plain: list[int] = tokenizer("a", add_special_tokens=False).input_ids
    starts = [at for at in range(len(whole) - len(plain) + 1) if whole[at : at + len(plain)] == plain]
    return whole[: starts[0]] if starts else []


def encode_answers(
    tokenizer: Any, texts: Sequence[str], prompts: Sequence[str] | None = None
) -> list[list[int]]:
    """Tokenise texts that continue a prompt, without the space that some tokenizers put before every text.

    Such a tokenizer reads ``" A"`` on its own as two spaces and a letter, and an indent of four spaces as one of five.
    Behind another text it reads the spaces that are there. A text behind an empty prompt begins as any document does.

    Args:
        tokenizer: of the model.
        texts: one per row.
        prompts: what each of them stands behind; None: something.
    """
    if not texts:
        return []
    asked = (
        [*zip(map(bool, prompts), texts, strict=True)] if prompts is not None else [(True, t) for t in texts]
    )
    different = list(dict.fromkeys(asked))
    found: list[list[int]] = tokenizer([text for _, text in different], add_special_tokens=False)["input_ids"]
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[:1]
    if first and first[0][:1] in PREFIX_SPACES:
        found = [
            (continues and _behind(tokenizer, text)) or ids
            for (continues, text), ids in zip(different, found, strict=True)
        ]
    known = dict(zip(different, found, strict=True))
    return [list(known[one]) for one in asked]


def _behind(tokenizer: Any, text: str) -> list[int] | None:
    """Return the tokens of a text behind one of `LEADS` that it does not merge with, or None."""
    for lead in LEADS:
        before: list[int] = tokenizer(lead, add_special_tokens=False)["input_ids"]
        whole: list[int] = tokenizer(lead + text, add_special_tokens=False)["input_ids"]
        if before and whole[: len(before)] == before:
            return whole[len(before) :]
    return None


def _check(
    names: Sequence[str],
    input_ids: Sequence[Sequence[int]],
    prompts: Sequence[int],
    max_length: int,
    who: str,
) -> None:
    if 0 in prompts:
        raise RequestError(
            f"row {names[prompts.index(0)]!r}: its prompt has no tokens and the tokenizer adds no BOS, so nothing "
            "predicts the answer's first token."
        )
    long = [row for row, ids in enumerate(input_ids) if len(ids) > max_length]
    if long:
        prompt, whole = prompts[long[0]], len(input_ids[long[0]])
        what = "prompt alone fills" if prompt >= max_length else "prompt and answer together exceed"
        others = f" {len(long) - 1} more of {len(names)} rows are too long." if long[1:] else ""
        raise RequestError(
            f"row {names[long[0]]!r}: its {what} the context: {prompt} + {whole - prompt} tokens of the {who}, "
            f"{max_length} allowed. Shorten the row, or leave out rows like it (data.too_long=leave_out); raise "
            f"data.max_length if that is what allows so few, or choose models with a longer context.{others}"
        )
