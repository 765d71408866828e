"""What a term gets to see of a batch, and what it gives back.

Shape suffixes: N positions that the term covers, D width, V vocabulary, P layer pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pkt.late import Tensor, nn
from pkt.objectives.distributions import Distributions
from pkt.objectives.head import OutputHead
from pkt.objectives.needs import (
    Chunks,
    Head,
    Labels,
    Need,
    Outputs,
    RowIds,
    Sequences,
    States,
    TeacherAnswers,
)

if TYPE_CHECKING:
    from pkt.objectives.attended import AttendedAnswers
    from pkt.objectives.chunk import ChunkedAnswers


@dataclass(frozen=True, kw_only=True)
class Pair:
    """States of a student layer, which the gradient goes through, and their targets: constants, unless a map trains."""

    layer: int
    states_ND: Tensor
    targets_ND: Tensor


@dataclass(frozen=True, kw_only=True)
class Sums:
    """A term's sum over a batch: (P) of a layer term, whose value is the mean over pairs, else a scalar.

    Attributes:
        total: the sums.
        count: what each is a sum over; the reducer divides by the count of the whole optimiser step.
    """

    total: Tensor
    count: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a term may build its own parameters and buffers from.

    Attributes:
        states, targets: width per paired student layer, as the term sees them.
        rows: number of row ids.
        student: width of the student.
        teacher: width of the teacher, for terms that attend to its answers; else 0.
    """

    states: Mapping[int, int]
    targets: Mapping[int, int]
    rows: int
    student: int = 0
    teacher: int = 0


@dataclass(frozen=True, kw_only=True)
class View:
    """A batch as one term sees it: reading what the term did not ask for is an AssertionError.

    Attributes:
        count: N, the positions that the term covers.
        given: for each need of the term, what it asked for.
        final: final-normed states, for output terms.
        own: what the term's `modules` made.
        later: takes a function, and calls it without gradient once the optimiser step is done; in validation it is
            never called. A term changes its buffers in such a function, in place, so that all micro batches of a
            step see the same ones.
    """

    count: int
    given: Mapping[type[Need], Any]
    final: Tensor | None = None
    own: nn.Module | None = None
    later: Callable[[Callable[[], None]], None] = lambda _change: None

    @property
    def pairs(self) -> Sequence[Pair]:
        """Paired layers."""
        return cast("Sequence[Pair]", self._of(States))

    @property
    def final_ND(self) -> Tensor:
        """Final-normed states, of output terms."""
        assert self.final is not None, "a layer term has states, and no final ones"
        return self.final

    @property
    def head(self) -> OutputHead:
        """The student's read-out."""
        return cast(OutputHead, self._of(Head))

    @property
    def teacher(self) -> Distributions:
        """The teacher's distributions."""
        return cast(Distributions, self._of(Outputs))

    @property
    def chunks(self) -> ChunkedAnswers:
        """The chunks of the answers' text."""
        return cast("ChunkedAnswers", self._of(Chunks))

    @property
    def answers(self) -> AttendedAnswers:
        """Both models' answers."""
        return cast("AttendedAnswers", self._of(TeacherAnswers))

    @property
    def labels_N(self) -> Tensor:
        """Tokens to predict."""
        return cast(Tensor, self._of(Labels))

    @property
    def row_N(self) -> Tensor:
        """Row ids."""
        return cast(Tensor, self._of(RowIds))

    @property
    def sequence_N(self) -> Tensor:
        """Rows of the batch, ascending."""
        return cast(Tensor, self._of(Sequences))

    def _of(self, need: type[Need]) -> Any:
        assert need in self.given, f"a term reads {need.__name__}, which is not among its needs"
        return self.given[need]
