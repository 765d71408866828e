"""Hidden states of a set of rows, ragged over positions.

Shape suffixes: N positions of all rows together, R rows, B rows of a batch, T padded length, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch


@dataclass(frozen=True, kw_only=True)
class RowStates:
    """States of R rows: row r owns ``flat_ND[offsets_R1[r] : offsets_R1[r + 1]]``, in position order."""

    flat_ND: Tensor
    offsets_R1: Tensor

    @classmethod
    def empty(cls, counts: list[int], width: int, dtype: torch.dtype) -> RowStates:
        """Allocate room for `counts[r]` states of each row r; their values are arbitrary until they are written."""
        offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
        offsets[1:] = torch.tensor(counts, dtype=torch.int64).cumsum(0)
        return cls(flat_ND=torch.empty(int(offsets[-1]), width, dtype=dtype), offsets_R1=offsets)

    def slots(self, rows: list[int]) -> Tensor:
        """Return the positions in `flat_ND` of the rows asked for, row after row, as (n,) int64."""
        ranges = [torch.arange(int(self.offsets_R1[r]), int(self.offsets_R1[r + 1])) for r in rows]
        return torch.cat(ranges) if ranges else torch.empty(0, dtype=torch.int64)

    def of(self, rows: list[int]) -> Tensor:
        """Return the states of the rows asked for, row after row, as (n, D)."""
        return self.flat_ND[self.slots(rows)]

    def write(self, rows: list[int], states_nD: Tensor) -> None:
        """Store the states of some rows, given row after row."""
        self.flat_ND[self.slots(rows)] = states_nD.detach().to("cpu", self.flat_ND.dtype)

    def padded(self, rows: list[int], length: int) -> Tensor:
        """Return the rows right-padded with zeros to (B, `length`, D)."""
        out_BTD = self.flat_ND.new_zeros(len(rows), length, self.flat_ND.shape[1])
        for b, r in enumerate(rows):
            start, stop = int(self.offsets_R1[r]), int(self.offsets_R1[r + 1])
            out_BTD[b, : stop - start] = self.flat_ND[start:stop]
        return out_BTD

    def scaled(self, factor: float) -> RowStates:
        """Return the states times a number."""
        if factor == 1.0:
            return self
        return RowStates(flat_ND=self.flat_ND * factor, offsets_R1=self.offsets_R1)

    def shuffled(self, generator: torch.Generator) -> RowStates:
        """Return the states in a random order over all rows: a control with real targets in wrong places."""
        order = torch.randperm(len(self.flat_ND), generator=generator)
        return RowStates(flat_ND=self.flat_ND[order], offsets_R1=self.offsets_R1)
