"""What the user should know of rows before believing their scores: one sentence each, with a count and an example.

rows -> rows that are also in another split | answers that begin or are in an unusual way | prompts that end in a token
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pkt.data.conversation import messages_of
from pkt.data.encoding import Encoded, encode_answers, encode_prompt
from pkt.data.lengths import Fitting
from pkt.data.pools import same

Rows = Sequence[Mapping[str, Any]]
UNSPACED = (
    "CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC",
    "YI ", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ",
)  # fmt: skip
"""How Unicode's names of letters begin in scripts that put no spaces between words."""
SHOWN = 24  # characters of a text in an example
_ALSO = "are also in"
_SCORED = re.compile(rf".+/\w+: \d+ of \d+ rows {_ALSO} train \(")


def overlap(name: str, rows: Rows, other: str, held: Rows) -> Iterator[str]:
    """Say how many rows are also in another split, white space aside.

    Args:
        name: what the rows are called.
        rows: with prompt and answer, such as test rows.
        other: what the other split is called.
        held: its rows.
    """
    whole = {_key(row) for row in held}
    prompts = {prompt for prompt, _ in whole if prompt}  # texts alone have none
    keys = [_key(row) for row in rows]
    found = [row for row, key in zip(rows, keys, strict=True) if key in whole]
    near = [row for row, key in zip(rows, keys, strict=True) if key[0] in prompts and key not in whole]
    if found or near:
        said = [
            f"{len(some)} of {len(rows)} rows {what} (row {some[0]['id']!r})"
            for some, what in (
                (found, f"{_ALSO} {other}"),
                (near, f"have a prompt of {other} with another answer"),
            )
            if some
        ]
        yield f"{name}: {'; '.join(said)}, white space aside. Scores on such rows say what was learnt by heart."


def trained_on(told: Iterable[str]) -> bool:
    """Return whether a run's notes say of scored rows (``task/split``) that they are also in train."""
    return any(_SCORED.match(sentence) for sentence in told)


def asked_too(name: str, rows: Rows, asked: Iterable[str], whose: str) -> Iterator[str]:
    """Say how many rows have a prompt that is also among prompts without answers, white space aside.

    Args:
        name: what the rows are called.
        rows: such as test rows.
        asked: the prompts.
        whose: what they are called.
    """
    known = {same(prompt) for prompt in asked}
    found = [row for row in rows if same(row["prompt"]) in known]
    if found:
        yield (
            f"{name}: {len(found)} of {len(rows)} rows have a prompt that is also among {whose} (white space aside; "
            f"row {found[0]['id']!r}). The student may have been trained on the teacher's answer to it."
        )


def unusual(name: str, rows: Rows) -> Iterator[str]:
    """Say how many answers are blank, and how many begin without the white space that belongs before them.

    Args:
        name: what the rows are called.
        rows: with prompt and answer; prompts as they are, not in a chat template.
    """
    blank = [row for row in rows if not row["answer"].strip()]
    if blank:
        yield (
            f"{name}: {len(blank)} of {len(rows)} answers are blank {_example(blank[0])}. They teach to stop at "
            "once, and an empty answer is never right in scoring."
        )
    joined = [row for row in rows if _joins(row["prompt"], row["answer"])]
    if joined:
        yield (
            f"{name}: {len(joined)} of {len(rows)} answers begin without white space behind a prompt that ends "
            f"without any {_example(joined[0])}. Begin an answer with the space or line break that belongs before it."
        )


def unwritable(name: str, rows: Rows, tokenizer: Any, who: str) -> Iterator[str]:
    """Say how many answers the tokenizer cannot write back: what it does not know, drops or changes.

    Args:
        name: what the rows are called.
        rows: with prompt and answer.
        tokenizer: of a model.
        who: has it.
    """
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id != tokenizer.eos_token_id else None
    answers = encode_answers(tokenizer, [row["answer"] for row in rows], [row["prompt"] for row in rows])
    lost = [row for row, ids in zip(rows, answers, strict=True) if unknown is not None and unknown in ids]
    if lost:
        more = (
            f" A student learns to write {tokenizer.unk_token} there, and bits per byte count it as if the text had "
            "been said: they do not compare with another tokenizer's."
        )
        yield (
            f"{name}: {len(lost)} of {len(rows)} answers hold text that the {who}'s tokenizer does not know and reads "
            f"as {tokenizer.unk_token} {_example(lost[0])}.{more if who == 'student' else ''}"
        )
    if who != "student":
        return
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    texts = [tokenizer.decode(ids, **plain) for ids in answers]
    changed = [
        (row, text)
        for row, text, ids in zip(rows, texts, answers, strict=True)
        if text.strip() != row["answer"].strip() and unknown not in ids
    ]
    if changed:
        row, text = changed[0]
        told = f"row {row['id']!r}: {row['answer'][:SHOWN]!r} becomes {text[:SHOWN]!r}"
        yield (
            f"{name}: {len(changed)} of {len(rows)} answers are others once the student's tokenizer has read and "
            f"written them ({told}). No model can write them as they are, so that whole answers are never right, and "
            "bits per byte count what is dropped as if it had been said: go by token accuracy."
        )


def unreachable(name: str, rows: Rows, tokenizer: Any, most: int) -> Iterator[str]:
    """Say how many answers are longer than what is generated: they can never be right.

    Args:
        name: what the rows are called.
        rows: with prompt and answer, of a task whose answers the model writes.
        tokenizer: of a model.
        most: new tokens that an answer may have.
    """
    answers = encode_answers(tokenizer, [row["answer"] for row in rows], [row["prompt"] for row in rows])
    if long := [len(ids) for ids in answers if len(ids) > most]:
        yield (
            f"{name}: {len(long)} of {len(rows)} answers have more than the {most} tokens that are generated (up to "
            f"{max(long)}), so no model can write them: raise eval.max_new_tokens."
        )


def inside_tokens(name: str, rows: Rows, encoded: Encoded, tokenizer: Any) -> Iterator[str]:
    """Say how many prompts end inside a token: read in one go, prompt and answer have other tokens at their border.

    Args:
        name: what the rows are called.
        rows: with prompt and answer.
        encoded: their tokens, without a chat template.
        tokenizer: of the model.
    """
    cut = [
        row
        for row, ids in zip(rows, encoded.input_ids, strict=True)
        # a text alone follows nothing
        if row["prompt"] and encode_prompt(tokenizer, row["prompt"] + row["answer"]) != ids[:-1]
    ]
    if cut:
        yield (
            f"{name}: {len(cut)} of {len(rows)} prompts end inside a token {_example(cut[0])}: read in one go, "
            "prompt and answer have other tokens at their border than in training and scoring. White space at the end "
            "of a prompt usually belongs to the start of its answer."
        )


def left_out(fitting: Fitting) -> Iterator[str]:
    """Say how many rows are left out because they are scored, too long, or more than was asked for."""
    for pool, (count, total) in fitting.beyond.items():
        key = f"data.sizes.{pool.rpartition('/')[2]}"
        yield (
            f"{pool}: {count:,} of {total:,} rows are not used ({key}={total - count}); {key}={total} takes them all."
        )
    for pool, (count, total) in fitting.scored.items():
        yield (
            f"{pool}: {count} of {total} rows are also scored, and are left out before the splits are drawn."
        )
    for pool, (count, total) in fitting.dropped.items():
        yield (
            f"{pool}: {count} of {total} rows have more than {fitting.max_length} tokens (data.max_length, the models' "
            "contexts) and are left out before the splits are drawn."
        )


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return same(row["prompt"]), same(row["answer"])


def _joins(prompt: str, answer: str) -> bool:
    """Return whether two words run into each other; scripts without spaces between words are not looked at."""
    begins = answer[:1]
    return (
        bool(prompt)  # a text alone follows nothing
        and not prompt[-1:].isspace()
        and begins.isalnum()
        and not unicodedata.name(begins, "").startswith(UNSPACED)
    )


def _example(row: Mapping[str, Any]) -> str:
    asked = messages_of(row["prompt"])[-1]["content"]
    return f"(row {row['id']!r}: {asked[-SHOWN:]!r} | {row['answer'][:SHOWN]!r})"


def of_splits(splits: Mapping[str, Rows], *, chat: bool) -> Iterator[str]:
    """Say what is to be said of the rows that a transfer reads.

    Args:
        splits: train and validation among them.
        chat: whether prompts are put into a chat template, which sets off the answer itself.
    """
    kept: Iterable[str] = () if chat else ("train", "validation")
    for name in kept:
        yield from unusual(name, splits[name])
    yield from overlap("validation", splits["validation"], "train", splits["train"])
