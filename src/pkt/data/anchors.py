"""Anchors: tokens of two vocabularies that stand for the same bytes."""

from __future__ import annotations

from typing import Any

from pkt.data.spelling import FALLBACK, Spelling

BEGINS, ENDS = "begins", "ends"


def anchors(
    teacher: Spelling,
    student: Spelling,
    rows: tuple[int, int],
    ends: tuple[int | None, int | None] | None = None,
) -> tuple[list[int], list[int]]:
    """Return the ids of the tokens that both vocabularies have, in the same order; none occurs twice on a side.

    Tokens are compared in bytes, the space before them among these. Special tokens are compared by their role (what
    ends a text, what begins one), never by name; one that does both only ends. Of several tokens with the same bytes
    the vocabulary's own one counts before a byte that stands in for letters, and the first before others.

    Args:
        teacher: how its tokenizer writes texts.
        student: the same of the student.
        rows: of the heads of teacher and student; tokens beyond have no row.
        ends: the tokens that end what they write, in a chat template the reply's; None: the tokenizers' own.
    """
    last = ends or (teacher.tokenizer.eos_token_id, student.tokenizer.eos_token_id)
    theirs, own = _by_content(teacher, rows[0], last[0]), _by_content(student, rows[1], last[1])
    both = sorted(own.keys() & theirs.keys(), key=lambda content: own[content])
    return [theirs[content] for content in both], [own[content] for content in both]


def _by_content(spelling: Spelling, rows: int, end: int | None) -> dict[Any, int]:
    names = {index: name for name, index in spelling.tokenizer.get_vocab().items()}
    roles = {ENDS: end, BEGINS: spelling.tokenizer.bos_token_id}
    if roles[BEGINS] == end:
        del roles[BEGINS]
    taken = {*spelling.special, *roles.values()}
    ordinary = [index for index in names if index < rows and index not in taken]
    found: dict[Any, int] = {}
    for index in sorted(ordinary, key=lambda index: (FALLBACK.fullmatch(names[index]) is not None, index)):
        if content := spelling.of_token(index):
            found.setdefault(content, index)
    return found | {role: index for role, index in roles.items() if index is not None and index < rows}
