"""Hidden states of a set of rows, ragged over positions, in memory; `shards` has those that lie on disk.

Shape suffixes: N positions of all rows together, R rows, B rows of a batch, T padded length, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from pkt.late import Tensor, torch


def is_float8(dtype: torch.dtype) -> bool:
    """Whether numbers have eight bits, and a scale beside them."""
    return dtype == torch.float8_e4m3fn


def bytes_each(width: int, dtype: torch.dtype) -> int:
    """Return the bytes of one position; eight-bit floats have a scale beside them."""
    return width * dtype.itemsize + (4 if is_float8(dtype) else 0)


class States(ABC):
    """Numbers of R rows: row r owns the positions ``offsets_R1[r]`` up to ``offsets_R1[r + 1]``, in order.

    Attributes:
        offsets_R1: where each row begins, and where the last one ends.
    """

    offsets_R1: Tensor

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers per position, D."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """As which they are stored."""

    @abstractmethod
    def at(self, positions_n: Tensor) -> Tensor:
        """Return the numbers at some positions (n) of all rows together, as (n, D) in memory."""

    @property
    def count(self) -> int:
        """N, the positions of all rows."""
        return int(self.offsets_R1[-1])

    @property
    def bytes(self) -> int:
        """Bytes of all of them, as they are stored."""
        return self.count * bytes_each(self.width, self.dtype)

    def flat(self) -> Tensor:
        """Return all of them, (N, D), in the order of the rows."""
        return self.at(torch.arange(self.count))

    def positions(self, rows: list[int]) -> Tensor:
        """Return the positions of the rows asked for, row after row, as (n,) int64."""
        index_n = torch.tensor(rows, dtype=torch.int64)
        begin_n, end_n = self.offsets_R1[index_n], self.offsets_R1[index_n + 1]
        counts_n = end_n - begin_n
        before_n = counts_n.cumsum(0) - counts_n
        return torch.repeat_interleave(begin_n - before_n, counts_n) + torch.arange(int(counts_n.sum()))

    def of(self, rows: list[int]) -> Tensor:
        """Return the numbers of the rows asked for, row after row, as (n, D)."""
        return self.at(self.positions(rows))

    def padded(self, rows: list[int], length: int) -> Tensor:
        """Return the rows right-padded with zeros to (B, `length`, D)."""
        flat_nD = self.of(rows)
        out_BTD = flat_nD.new_zeros(len(rows), length, self.width)
        counts = [int(self.offsets_R1[r + 1] - self.offsets_R1[r]) for r in rows]
        for b, (stop, count) in enumerate(zip(accumulate(counts), counts, strict=True)):
            out_BTD[b, :count] = flat_nD[stop - count : stop]
        return out_BTD

    def pieces(self, size: int = 65536) -> Iterator[Tensor]:
        """Yield all of them, `size` positions at a time."""
        for start in range(0, self.count, size):
            yield self.at(torch.arange(start, min(start + size, self.count)))


def offsets(counts: list[int]) -> Tensor:
    """Return where rows with so many positions each begin, as (R + 1) int64."""
    found = torch.zeros(len(counts) + 1, dtype=torch.int64)
    found[1:] = torch.tensor(counts, dtype=torch.int64).cumsum(0)
    return found


@dataclass(frozen=True, kw_only=True)
class RowStates(States):
    """States in memory."""

    flat_ND: Tensor
    offsets_R1: Tensor

    @classmethod
    def empty(cls, counts: list[int], width: int, dtype: torch.dtype) -> RowStates:
        """Allocate room for `counts[r]` states of each row r; their values are arbitrary until they are written."""
        begins = offsets(counts)
        return cls(flat_ND=torch.empty(int(begins[-1]), width, dtype=dtype), offsets_R1=begins)

    @property
    def width(self) -> int:
        """Numbers per position."""
        return self.flat_ND.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Their type."""
        return self.flat_ND.dtype

    def at(self, positions_n: Tensor) -> Tensor:
        """Return the states at some positions."""
        return self.flat_ND[positions_n]

    def flat(self) -> Tensor:
        """Return them themselves."""
        return self.flat_ND

    def write(self, rows: list[int], states_nD: Tensor) -> None:
        """Store the states of some rows, given row after row."""
        self.flat_ND[self.positions(rows)] = states_nD.detach().to("cpu", self.flat_ND.dtype)


@dataclass(frozen=True, kw_only=True)
class Reordered(States):
    """States with their positions in another order over all rows: a control with real targets in wrong places.

    Attributes:
        states: the states in their own places.
        order_N: which position's state each position gets.
    """

    states: States
    order_N: Tensor

    @property
    def offsets_R1(self) -> Tensor:  # type: ignore[override]
        """Where each row begins."""
        return self.states.offsets_R1

    @property
    def width(self) -> int:
        """Numbers per position."""
        return self.states.width

    @property
    def dtype(self) -> torch.dtype:
        """As which they are stored."""
        return self.states.dtype

    def at(self, positions_n: Tensor) -> Tensor:
        """Return the states that stand at some positions."""
        return self.states.at(self.order_N[positions_n])
