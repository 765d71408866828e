"""Token ids of many rows in one array: four bytes per token, whatever the number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Tokens(Sequence[list[int]]):
    """Rows of token ids; each is a list when it is asked for.

    Args:
        rows: the ids of each row, none of them above 2^31 - 1.
    """

    def __init__(self, rows: Iterable[Sequence[int]]) -> None:
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        self.flat: NDArray[np.int32] = np.concatenate([np.empty(0, dtype=np.int32), *parts])
        self.offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> list[int]: ...

    @overload
    def __getitem__(self, row: slice) -> list[list[int]]: ...

    def __getitem__(self, row: int | slice) -> list[int] | list[list[int]]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        place = range(len(self))[row]  # raises the IndexError of a list
        found: list[int] = self.flat[self.offsets[place] : self.offsets[place + 1]].tolist()
        return found

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        found: list[int] = np.diff(self.offsets).tolist()
        return found
