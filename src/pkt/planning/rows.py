"""How many rows and tokens each split has: counted on the request's own rows, or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tokens of some rows.

    Attributes:
        lengths: tokens of each row.
        answers: how many positions of each row predict an answer token.
    """

    lengths: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()

    @classmethod
    def alike(cls, count: int, prompt: int, answer: int) -> Rows:
        """Return rows that are all alike."""
        return cls(lengths=(prompt + answer,) * count, answers=(answer,) * count)

    def __len__(self) -> int:
        return len(self.lengths)

    def __add__(self, other: Rows) -> Rows:
        return Rows(lengths=self.lengths + other.lengths, answers=self.answers + other.answers)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.lengths)

    @property
    def mean(self) -> float:
        """Tokens of the mean row."""
        return self.tokens / len(self) if len(self) else 0.0

    def positions(self, which: str) -> int:
        """Return the positions of all rows that terms cover: ``answer`` or ``all``."""
        return sum(self.answers) if which == "answer" else self.tokens

    def widest(self, size: int) -> Batch:
        """Return the largest batch of so many rows: the longest ones."""
        order = sorted(range(len(self)), key=lambda row: -self.lengths[row])[:size]
        longest = max((self.lengths[row] for row in order), default=0)
        return Batch(
            rows=len(order),
            length=longest,
            tokens=sum(self.lengths[row] for row in order),
            answers=sum(sorted(self.answers, reverse=True)[:size]),
        )

    def within(self, tokens: int) -> Batch:
        """Return the largest batch of rows of one length that so many tokens hold, padding included."""
        order = sorted(range(len(self)), key=lambda row: -self.lengths[row])
        longest = max(self.lengths, default=0)
        chosen = order[: max(1, tokens // max(longest, 1))]
        return Batch(
            rows=len(chosen),
            length=longest,
            tokens=sum(self.lengths[row] for row in chosen),
            answers=min(tokens, sum(sorted(self.answers, reverse=True)[: len(chosen)])),
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A padded batch.

    Attributes:
        rows: B.
        length: T, of the longest row.
        tokens: without padding.
        answers: positions that predict an answer token.
    """

    rows: int
    length: int
    tokens: int
    answers: int

    @property
    def padded(self) -> int:
        """B times T, which is what is computed."""
        return self.rows * self.length

    def positions(self, which: str) -> int:
        """Return the positions that terms cover: ``answer`` or ``all``."""
        return self.answers if which == "answer" else self.tokens


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The rows of a request.

    Attributes:
        splits: by name.
        prompts: those without labels, which the teacher answers.
        scored: of the tasks: rows, and tokens that are read and written at most.
        told: where the numbers come from, for the reader.
    """

    splits: dict[str, Rows]
    prompts: Rows
    scored: Sequence[Scored]
    told: str

    def __getitem__(self, split: str) -> Rows:
        return self.splits[split]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What scoring a task takes of a model.

    Attributes:
        task: its name.
        rows: with its prompt as tokens and what is written or compared as answer.
        writes: whether answers are generated, one token after the other.
    """

    task: str
    rows: Rows
    writes: bool
