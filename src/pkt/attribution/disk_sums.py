"""Sums of |theta * g| on disk, resumable to the bit.

Each kept parameter has two files (slots). Between two checkpoints the sums are read from the one that the
state file names and written to the other; a checkpoint makes the others current by replacing the state file.
Wherever the process dies, the named slots are whole.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from pkt.errors import PktError

_STATE = "sensitivity.json"
_PART = 1 << 20  # weights whose float32 products are alive at once


@dataclass(kw_only=True)
class DiskSums:
    """Running sums: elementwise in files, per parameter in memory and in the state file.

    Attributes:
        folder: of files and state.
        keep: names of the parameters that are summed element by element; the others only as a whole.
        slots: which file of a parameter the state file names (0 or 1).
        totals: sum over each parameter.
        skipped: rows that were left out.
        ahead: parameters whose other slot is newer than the state file.
    """

    folder: Path
    keep: frozenset[str]
    slots: dict[str, int] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)
    ahead: set[str] = field(default_factory=set)

    def resume(self) -> int:
        """Read the state file; return the number of rows done."""
        path = self.folder / _STATE
        if not path.is_file():
            return 0
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.slots, self.totals, self.skipped = state["slots"], state["totals"], state["skipped"]
        return int(state["done"])

    def add(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        """Add |theta * g| of one row."""
        total = 0.0
        with self._files(name, parameter) as store:
            weights, gradients = parameter.detach().reshape(-1), gradient.reshape(-1)
            for start in range(0, len(weights), _PART):
                part = slice(start, start + _PART)
                product = (weights[part].float() * gradients[part].float()).abs_().cpu()
                total += float(product.sum(dtype=torch.float64))
                store(start, product)
        if not math.isfinite(total):
            raise PktError(
                f"the sensitivity of {name} became {total}: its gradient is not finite. "
                "Load the teacher in float32 (model.teacher.dtype=float32)."
            )
        self.totals[name] = self.totals.get(name, 0.0) + total

    @contextmanager
    def _files(self, name: str, parameter: Tensor) -> Iterator[Callable[[int, Tensor], None]]:
        """Yield a function that adds numbers from some position on; it is called in ascending order."""
        if name not in self.keep:
            yield lambda _start, _product: None
            return
        current = self.slots.get(name)
        other = slot_file(self.folder, name, 0 if current is None else 1 - current)
        if name in self.ahead:
            with other.open("r+b") as both:
                yield lambda start, product: _add(both, both, start, product)
        elif current is None:
            with other.open("wb") as target:
                yield lambda start, product: _add(None, target, start, product)
        else:
            with slot_file(self.folder, name, current).open("rb") as source, other.open("wb") as target:
                yield lambda start, product: _add(source, target, start, product)
        self.ahead.add(name)

    def checkpoint(self, done: int) -> None:
        """Make the newer slots current; a kill at any moment leaves the old state or the new one."""
        for name in sorted(self.ahead):
            current = self.slots.get(name)
            slot = 0 if current is None else 1 - current
            _sync(slot_file(self.folder, name, slot))
            self.slots[name] = slot
        self.ahead.clear()
        state = {"done": done, "slots": self.slots, "totals": self.totals, "skipped": self.skipped}
        fresh = self.folder / f"{_STATE}.new"
        fresh.write_text(json.dumps(state), encoding="utf-8")
        _sync(fresh)
        fresh.replace(self.folder / _STATE)


def _add(source: BinaryIO | None, target: BinaryIO, start: int, product: Tensor) -> None:
    values = product.numpy()
    if source is not None:
        source.seek(4 * start)
        values += np.frombuffer(source.read(values.nbytes), dtype=np.float32)
    target.seek(4 * start)
    target.write(values.tobytes())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def slot_file(folder: Path, name: str, slot: int) -> Path:
    """Name the file of a parameter's slot: float32 numbers, nothing else."""
    return folder / f"{name}.{slot}.f32"
