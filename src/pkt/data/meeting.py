"""Where two tokenisations of one row meet: pairs of positions at which both models have read the same bytes.

    a model's row -> marks: what it has read at each position -> positions whose marks both models have

A mark is (part, bytes): the byte that was reached in a part of the row that both models read. Special tokens count by
their role: what begins a row, what stands before the answer (the end of the prompt, in a chat template the opening of
the reply), what ends the row. What only one of them reads (a chat template's own words) has no mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from random import Random
from typing import Any

from pkt.data.chat import Chat
from pkt.data.conversation import messages_of
from pkt.data.encoding import NEW_WORD, SAME_TOKEN, Encoded, as_read
from pkt.data.spelling import Spelling
from pkt.data.tokens import Tokens

VERSION = 4  # raised when the rules here, of spelling or of anchors change; part of keys
BEGINS, ASKED, ANSWER, ENDS = 0, 1 << 30, (1 << 30) + 1, (1 << 30) + 2
"""Parts of a row, in order; between the first two the prompt's own are numbered from 1."""

Mark = tuple[int, int]


def marks(
    spelling: Spelling,
    ids: Sequence[int],
    prompt_length: int,
    *,
    prompt: str,
    answer: str,
    parts: Sequence[str],
) -> list[Mark | None]:
    """Return what a model has read at each position of a row, ascending; None where that is not comparable.

    Args:
        spelling: of its tokenizer.
        ids: prompt, answer and end, as `encode` makes them.
        prompt_length: tokens before the answer.
        prompt: as the model reads it, in its chat template.
        answer: the text behind it.
        parts: texts that both models' prompts have, in their order.
    """
    # before a text alone stands a token that is no text
    cut = prompt_length if prompt else 0
    asked, spans = spelling.ends(prompt, ids[:cut]), _spans(prompt, parts)
    answered = spelling.ends(answer, ids[cut:-1])
    found: list[Mark | None] = [_placed(end, spans) for end in asked]
    found += [(ANSWER, end) if end > 0 else None for end in answered]
    before = next((n for n, end in enumerate(asked + answered) if end != 0), len(found))
    if before:  # tokens that stand for no text
        found[before - 1] = (BEGINS, 0) if before < prompt_length or cut else (ASKED, 0)
    if cut:
        found[cut - 1] = (ASKED, 0)
    return _last_of_each([*found, (ENDS, 0)])


Span = tuple[int, int, int]


def _spans(prompt: str, parts: Sequence[str]) -> list[Span]:
    """Return number, first byte and last byte of each part of a prompt, in order.

    A part whose text stands in the prompt more than once is left out: a template's own words may hold it too.
    """
    found, at = list[Span](), 0
    for number, part in enumerate(parts, start=1):
        if prompt.count(part) == 1 and (begin := prompt.find(part, at)) >= 0:
            first, at = len(prompt[:begin].encode()), begin + len(part)
            found.append((number, first, first + len(part.encode())))
    return found


def _placed(end: int, spans: Sequence[Span]) -> Mark | None:
    """Return in which part of the prompt a byte is, and how far in it."""
    return next(((number, end - first) for number, first, last in spans if first < end <= last), None)


def _last_of_each(found: Sequence[Mark | None]) -> list[Mark | None]:
    """Keep the last of equal marks: tokens that add no byte come before those that have read them too."""
    kept, least = list[Mark | None](), (ENDS + 1, 0)
    for mark in reversed(found):
        kept.append(mark if mark is not None and mark < least else None)
        least = kept[-1] or least
    return kept[::-1]


def common_parts(prompt: str, chat: Chat | None) -> list[str]:
    """Return the texts of a prompt that every model reads: all of it, or in a chat template what is said."""
    if chat is None:
        return [prompt] if prompt else []
    # templates strip what is said
    return [said for message in messages_of(prompt) if (said := message["content"].strip())]


def pairs(student: Sequence[Mark | None], teacher: Sequence[Mark | None]) -> list[tuple[int, int]]:
    """Return the positions of both sides that have the same mark, ascending on both."""
    where = {mark: position for position, mark in enumerate(teacher) if mark is not None}
    return [(position, where[mark]) for position, mark in enumerate(student) if mark in where]


def follows(
    found: Sequence[tuple[int, int]],
    own: Sequence[Mark | None],
    answer: bytes,
    sides: tuple[tuple[Spelling, Sequence[int]], tuple[Spelling, Sequence[int]]],
) -> list[int]:
    """Return what comes behind each pair of positions, see `Encoded.follows`.

    Args:
        found: the pairs of a row.
        own: the student's marks.
        answer: the row's.
        sides: how student and teacher spell, and their tokens of the row.
    """
    following = [(*pair, after) for pair, after in zip(found, [*found[1:], None], strict=True)]
    return [
        (SAME_TOKEN if after == (at + 1, there + 1) and _alike(after, own, sides) else 0)
        + (NEW_WORD if _word_begins(own[at], answer) else 0)
        for at, there, after in following
    ]


def _alike(
    places: tuple[int, int],
    own: Sequence[Mark | None],
    sides: tuple[tuple[Spelling, Sequence[int]], tuple[Spelling, Sequence[int]]],
) -> bool:
    """Return whether two tokens stand for the same bytes, or end the row; one that is not known stands for none."""
    if own[places[0]] == (ENDS, 0):
        return True
    first, second = (
        b"" if (index := ids[place]) in spelling.special else spelling.of_token(index)
        for (spelling, ids), place in zip(sides, places, strict=True)
    )
    return first == second != b""


def _word_begins(mark: Mark | None, answer: bytes) -> bool:
    """Return whether a word of the answer begins at a mark, with the space before it, or the answer begins or ends."""
    if mark is None or mark[0] != ANSWER:
        return mark == (ASKED, 0)
    return mark[1] == len(answer) or answer[mark[1] : mark[1] + 1].isspace()


def met(
    rows: Sequence[Mapping[str, Any]],
    student: tuple[Any, Encoded],
    teacher: tuple[Any, Encoded],
    chat: Chat | None = None,
) -> tuple[Encoded, Encoded]:
    """Return the rows of both models with the positions at which they meet, and what follows (`Encoded.met`).

    Args:
        rows: with prompt and answer.
        student: its tokenizer, and the rows as it reads them.
        teacher: the same of the teacher.
        chat: the chat template of both; None: prompts stay as they are.
    """
    prompts = [row["prompt"] for row in rows]
    parts = [common_parts(prompt, chat) for prompt in prompts]
    spellings = Spelling.of(student[0], "student"), Spelling.of(teacher[0], "teacher")
    sides = [
        list(_marked(spelling, rows, encoded, as_read(prompts, spelling.tokenizer, chat, who), parts))
        for spelling, encoded, who in zip(
            spellings, (student[1], teacher[1]), ("student", "teacher"), strict=True
        )
    ]
    found = [pairs(*both) for both in zip(*sides, strict=True)]
    read = zip(student[1].input_ids, teacher[1].input_ids, strict=True)
    behind = Tokens(
        follows(own, marked, row["answer"].encode(), ((spellings[0], mine), (spellings[1], theirs)))
        for own, marked, row, (mine, theirs) in zip(found, sides[0], rows, read, strict=True)
    )
    return (
        replace(student[1], met=Tokens([own for own, _ in row] for row in found), follows=behind),
        replace(teacher[1], met=Tokens([theirs for _, theirs in row] for row in found), follows=behind),
    )


def thinned(
    rows: Sequence[Mapping[str, Any]], sides: tuple[Encoded, Encoded], share: float, seed: int
) -> tuple[Encoded, Encoded]:
    """Return the rows of both models with some of the positions at which they meet.

    Args:
        rows: with prompt and answer; which positions stay depends on them alone, and on the seed.
        sides: the rows of both models, as `met` returns them.
        share: the probability of each position to stay.
        seed: of the draws.
    """
    student, teacher = sides
    assert student.met is not None, "rows of two tokenizers"
    assert teacher.met is not None, "rows of two tokenizers"
    assert student.follows is not None, "rows of two tokenizers"
    drawn = []
    for row, own in zip(rows, student.met, strict=True):
        random = Random(f"{seed}/{row['prompt']}/{row['answer']}")
        drawn.append([random.random() < share for _ in own])

    def left(of: Sequence[list[int]]) -> Tokens:
        return Tokens(list(compress(own, stays)) for own, stays in zip(of, drawn, strict=True))

    behind = left(student.follows)
    return (
        replace(student, met=left(student.met), follows=behind),
        replace(teacher, met=left(teacher.met), follows=behind),
    )


def _marked(
    spelling: Spelling,
    rows: Sequence[Mapping[str, Any]],
    encoded: Encoded,
    prompts: Sequence[str],
    parts: Sequence[Sequence[str]],
) -> Iterator[list[Mark | None]]:
    whole = zip(rows, encoded.input_ids, encoded.prompt_lengths, prompts, parts, strict=True)
    for row, ids, length, prompt, own in whole:
        yield marks(spelling, ids, length, prompt=prompt, answer=row["answer"], parts=own)
