"""What a term may ask for. Capture, views and refusals all read these declarations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class States:
    """Paired states: a term with this need is a layer term, one without it an output term.

    Attributes:
        positions: ``answer`` (those that predict an answer token) or ``all`` (every non-padding one).
        single_teacher: each student layer has to have exactly one teacher layer.
        student_space: targets have to lie where the student's head reads states.
        interfaces: where in a layer the states may be read; empty: anywhere.
        because: the reason for the last three, as it follows "because" in a refusal.
        constant: no gradient reaches the targets, so that a map cannot be trained by the term.
    """

    positions: Literal["answer", "all"] = "answer"
    single_teacher: bool = False
    student_space: bool = False
    interfaces: tuple[str, ...] = ()
    because: str = ""
    constant: bool = False


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The teacher's next-token distributions at the positions that predict an answer token.

    Attributes:
        temperature: tau of softmax(z / tau).
        top_k: tokens kept per position; None: all.
        live: a forward pass of the teacher at every step, instead of what `align` kept.
        ordered: log-probabilities of the whole vocabulary in descending order, whatever the tokens.
    """

    temperature: float = 1.0
    top_k: int | None = None
    live: bool = False
    ordered: bool = False


Ends = Literal["any", "space", "unbiased"]


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """How likely each chunk of an answer's text is, to the teacher and to the student (`objectives.chunk`).

    Attributes:
        ends: where chunks end, see `Chunk`.
    """

    ends: Ends = "any"


@dataclass(frozen=True, kw_only=True)
class TeacherAnswers:
    """The teacher's final states and embeddings at all its own answer positions, and the student's embeddings there."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The next tokens."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The student's read-out.

    Attributes:
        frozen: the term computes something of the head once, so the head may not train.
    """

    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class RowIds:
    """For each position the number of its row, the same in every epoch; no two splits share one."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """For each position the row of the batch that it is in, ascending.

    Attributes:
        together: the term compares rows with one another, so that those of a step have to be in one forward pass.
    """

    together: bool = False


Need = States | Outputs | Chunks | TeacherAnswers | Labels | Head | RowIds | Sequences
