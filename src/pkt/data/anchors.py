"""Anchors: tokens of two vocabularies that stand for the same bytes."""

from __future__ import annotations

from typing import Any

from pkt.data.spelling import FALLBACK, Spelling

ROLES = ("bos_token_id", "eos_token_id")


def anchors(teacher: Spelling, student: Spelling, rows: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return the ids of the tokens that both vocabularies have, in the same order.

    Tokens are compared in bytes, the space before them among these. Special tokens are compared by their role (what
    begins a text, what ends it), never by name. Of several tokens with the same bytes the vocabulary's own one counts
    before a byte that stands in for letters, and the first before others.

    Args:
        teacher: how its tokenizer writes texts.
        student: the same of the student.
        rows: of the heads of teacher and student; tokens beyond have no row.
    """
    theirs, own = _by_content(teacher, rows[0]), _by_content(student, rows[1])
    both = sorted(own.keys() & theirs.keys(), key=lambda content: own[content])
    return [theirs[content] for content in both], [own[content] for content in both]


def _by_content(spelling: Spelling, rows: int) -> dict[Any, int]:
    names = {index: name for name, index in spelling.tokenizer.get_vocab().items()}
    ordinary = [index for index in names if index < rows and index not in spelling.special]
    found: dict[Any, int] = {}
    for index in sorted(ordinary, key=lambda index: (FALLBACK.fullmatch(names[index]) is not None, index)):
        if content := spelling.of_token(index):
            found.setdefault(content, index)
    for role in ROLES:
        if (index := getattr(spelling.tokenizer, role)) is not None and index < rows:
            found[role] = index
    return found
