"""Sums of |theta * g| on disk, resumable to the bit.

Each kept parameter has two files (slots). Between two checkpoints the sums are read from the slot that the state file
names and written to the other one; a checkpoint replaces the state file by one that names the newer slots. Whenever
the process dies, the slots that the state file names are complete. The state file is sealed and names their checksums:
sums that are not as they were written are not gone on from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pkt.durable import PASSING, check_file, entry, read_sealed, sealed, set_aside, sync, write_atomically
from pkt.errors import PktError
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture

_STATE = "sensitivity.json"
_KEPT = ("slots", "totals", "done", "skipped", "files")
_PART = 1 << 20  # weights whose float32 products are alive at once


@dataclass(kw_only=True)
class DiskSums:
    """The sensitivity S of a model: elementwise in files, and summed per parameter in memory and in the state file.

    Attributes:
        folder: of the files.
        shapes: shapes of the parameters that are summed element by element, by name; of others only the total is kept.
        slots: which slot (0 or 1) of a parameter the state file names; no entry before its first gradient.
        totals: sum over each parameter.
        done: number of rows in the sums that the state file names.
        skipped: which of them were left out.
        files: size and checksum of the slots that the state file names, by the file's name.
        ahead: parameters whose other slot is newer than the state file.
    """

    folder: Path
    shapes: dict[str, tuple[int, ...]]
    slots: dict[str, int] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    done: int = 0
    skipped: list[int] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    ahead: set[str] = field(default_factory=set)

    def resume(self) -> None:
        """Go on from the state file, if there is one; where it or a sum was changed, from the beginning."""
        path = self.folder / _STATE
        if not path.exists():
            return
        try:
            state = self._checked(read_sealed(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise
            set_aside(path, error, "the sensitivity is summed from the first row on")
        else:
            vars(self).update({name: state[name] for name in _KEPT})

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state whose sums are these, of these parameters, as they were written."""
        if state["place"] != self._place:
            raise ValueError(f"it was written for {state['place']}")
        for name, slot in state["slots"].items():
            file = self._file(name, slot)
            check_file(file, state["files"][file.name])
            if name not in self.shapes or file.stat().st_size != 4 * math.prod(self.shapes[name]):
                raise ValueError(f"it has sums of another {name}")
        return state

    @property
    def _place(self) -> str:
        """What the state file calls its folder, wherever the outputs lie."""
        return "/".join(self.folder.parts[-2:])

    def matrix(self, name: str) -> Tensor:
        """Read S of a parameter that was summed element by element, in float32 and the parameter's own shape."""
        shape = self.shapes[name]
        if name not in self.slots:
            return torch.zeros(shape)
        file = self._file(name, self.slots[name])
        values = np.fromfile(file, dtype=np.float32)
        if hashlib.sha256(values.data).hexdigest() != self.files[file.name]["sha256"]:
            raise PktError(
                f"{file} is not as it was written a moment ago: the disk fails; run the request again"
            )
        return torch.from_numpy(values).reshape(shape)

    def layer_scores(self, arch: Architecture) -> tuple[float, ...]:
        """Return the sum of S over all parameters of each layer, layer 1 first."""
        prefixes = [f"{arch.roles.layers}.{index}." for index in range(arch.depth)]
        return tuple(
            math.fsum(total for name, total in self.totals.items() if name.startswith(prefix))
            for prefix in prefixes
        )

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
        if name not in self.shapes:
            yield lambda _start, _product: None
            return
        current = self.slots.get(name)
        other = self._file(name, 0 if current is None else 1 - current)
        if name in self.ahead:
            with other.open("r+b") as both:
                yield lambda start, product: _add(both, both, start, product)
        elif current is None:
            with other.open("wb") as target:
                yield lambda start, product: _add(None, target, start, product)
        else:
            with self._file(name, current).open("rb") as source, other.open("wb") as target:
                yield lambda start, product: _add(source, target, start, product)
        self.ahead.add(name)

    def checkpoint(self, done: int) -> None:
        """Make the newer slots current; a process that dies here leaves the old state or the new one."""
        for name in sorted(self.ahead):
            current = self.slots.get(name)
            slot = 0 if current is None else 1 - current
            file = self._file(name, slot)
            sync(file)
            self.slots[name], self.files[file.name] = slot, entry(file)
            self.files.pop(self._file(name, 1 - slot).name, None)
        self.ahead.clear()
        self.done = done
        state = {name: getattr(self, name) for name in _KEPT}
        write_atomically(self.folder / _STATE, sealed({"place": self._place, **state}))

    def _file(self, name: str, slot: int) -> Path:
        """Return a slot of a parameter: float32 numbers, nothing else."""
        return self.folder / f"{name}.{slot}.f32"


def _add(source: BinaryIO | None, target: BinaryIO, start: int, product: Tensor) -> None:
    values = product.numpy()
    if source is not None:
        source.seek(4 * start)
        values += np.frombuffer(source.read(values.nbytes), dtype=np.float32)
    target.seek(4 * start)
    target.write(values.data)
