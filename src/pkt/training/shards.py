"""What a model says of many rows, on disk in files of bounded size, read through memory maps.

    batches of rows ── compute ──> columns of a batch ──> <folder>/00000.safetensors, 00000.json, 00001.safetensors, ...
    rows ── Shards ──> which file, which positions ──> memory

A file holds the rows of some batches, whole, so rows of one length are together. It is written beside its place,
synchronised and renamed; its JSON is sealed and has its checksum. A capture that was stopped goes on with the first
file that is not there.

Shape suffixes: N positions of all rows, n positions asked for, R rows, W width of a column.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from pkt.durable import check_file, entry, move, read_sealed, sealed, set_aside, sync, write_atomically
from pkt.errors import PktError
from pkt.late import Tensor, torch
from pkt.processes import ALONE, Processes
from pkt.training.states import States, bytes_each, is_float8, offsets

_SCALE = ".scale"  # of a column of eight-bit numbers: one per position
_OPEN = 64  # files that are mapped at a time


@dataclass(frozen=True, kw_only=True)
class Column:
    """One thing that is kept of every row.

    Attributes:
        counts: positions of each row.
        width: numbers per position.
        dtype: as which they are stored; float8_e4m3 has a scale per position beside them.
    """

    counts: Sequence[int]
    width: int
    dtype: torch.dtype

    @classmethod
    def like(cls, states: States) -> Column:
        """Return the column that has what some states have."""
        counts = (states.offsets_R1[1:] - states.offsets_R1[:-1]).tolist()
        return cls(counts=counts, width=states.width, dtype=states.dtype)

    @property
    def bytes_each(self) -> int:
        """Bytes of one position."""
        return bytes_each(self.width, self.dtype)

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return sum(self.counts) * self.bytes_each


Compute = Callable[[list[int]], Mapping[str, Tensor]]
"""Rows of a batch -> (n, W) of each column, row after row."""


def write_shards(
    folder: Path,
    columns: Mapping[str, Column],
    batches: Sequence[list[int]],
    compute: Compute,
    *,
    limit: int,
    listen: Callable[[list[int]], None] = lambda _rows: None,
    processes: Processes = ALONE,
) -> Shards:
    """Compute some columns of all rows and keep them, but for what is there already.

    Several processes share the files among them, however many there were when some of the files were made.

    Args:
        folder: made where it is missing.
        columns: what is kept.
        batches: rows that are computed together; every row is in one.
        compute: see `Compute`.
        limit: bytes of a file; one with a single batch may be larger.
        listen: called with the rows of every batch, computed or found, here or by another process.
        processes: who computes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = _grouped(batches, columns, limit)
    own = set(processes.own(range(len(groups))))
    for number, group in enumerate(groups):
        rows = [row for batch in group for row in batch]
        if number not in own or _is_there(folder, number, rows):
            for batch in group:
                listen(batch)
            continue
        parts = []
        for batch in group:
            found = compute(batch)
            parts.append({name: _stored(found[name], column.dtype) for name, column in columns.items()})
            listen(batch)
        _write(folder, number, rows, columns, parts)
    if processes.main:
        for stale in _files(folder)[len(groups) :]:  # of a capture with smaller files
            _remove(stale)
    processes.wait()
    return Shards.open(folder)


def _grouped(
    batches: Sequence[list[int]], columns: Mapping[str, Column], limit: int
) -> list[list[list[int]]]:
    """Return the batches of each file."""
    groups: list[list[list[int]]] = []
    room = 0
    for batch in batches:
        size = sum(column.counts[row] * column.bytes_each for row in batch for column in columns.values())
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(batch)
        room -= size
    return groups or [[]]  # without rows there is a file all the same, which says what is in it


def _write(
    folder: Path,
    number: int,
    rows: list[int],
    columns: Mapping[str, Column],
    parts: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
) -> None:
    tensors = {}
    for name, column in columns.items():
        nothing = torch.empty(0, column.width)
        stored = [part[name] for part in parts] or [_stored(nothing, column.dtype)]
        tensors[name] = torch.cat([values for values, _ in stored])
        if is_float8(column.dtype):
            tensors[name + _SCALE] = torch.cat([scale for _, scale in stored])
    from safetensors.torch import save_file  # imports torch

    file = _file(folder, number)
    fresh = file.with_suffix(".new")
    try:
        save_file(tensors, fresh)
        sync(fresh)
        move(fresh, file)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    about = {
        "file": entry(file),
        "rows": rows,
        "columns": {name: [column.counts[row] for row in rows] for name, column in columns.items()},
    }
    write_atomically(file.with_suffix(".json"), sealed(about))


def _stored(values_nW: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return numbers as they are stored, and the scale of each position."""
    values_nW = values_nW.detach().cpu()
    if not is_float8(dtype):
        return values_nW.to(dtype).contiguous(), values_nW.new_empty(0)
    values_nW = values_nW.float()
    scale_n1 = (values_nW.abs().amax(-1, keepdim=True) / torch.finfo(dtype).max).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    return (values_nW / scale_n1).to(dtype), scale_n1


def rounded(values_nW: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers as they are read back after they were stored; eight-bit ones as float32."""
    stored, scale = _stored(values_nW, dtype)
    return stored.float() * scale if is_float8(dtype) else stored


def _is_there(folder: Path, number: int, rows: list[int]) -> bool:
    """Return whether a file holds just these rows; one that is damaged, or of other rows, goes."""
    file = _file(folder, number)
    if not file.with_suffix(".json").exists():
        return False
    try:
        about = read_sealed(file.with_suffix(".json"))
        check_file(file, about["file"])
    except (ValueError, KeyError, TypeError) as error:
        set_aside(file.with_suffix(".json"), error, "its rows are computed again")
        return False
    if about["rows"] != rows:  # the batches were cut in another way
        _remove(file)
        return False
    return True


def _remove(file: Path) -> None:
    file.with_suffix(".json").unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.safetensors"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Shards:
    """Columns of R rows on disk.

    Attributes:
        folder: where they lie.
        files: in order.
        shard_R: which file has each row.
        begins: per column, where each row (R) begins in its file.
        offsets: per column, where each row begins among all rows (R + 1).
    """

    folder: Path
    files: tuple[Path, ...]
    shard_R: Tensor
    begins: Mapping[str, Tensor]
    offsets: Mapping[str, Tensor]
    _mapped: OrderedDict[int, Any] = field(default_factory=OrderedDict)

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Find out where every row is; no numbers are read.

        Raises:
            PktError: files are missing or damaged.
        """
        files = _files(folder)
        try:
            about = [read_sealed(file.with_suffix(".json")) for file in files]
        except (OSError, ValueError) as error:
            raise PktError(
                f"{folder} holds no whole states ({error}): delete {folder.parent} and run the request again."
            ) from error
        rows = sum(len(own["rows"]) for own in about)
        shard_R = torch.empty(rows, dtype=torch.int64)
        begins: dict[str, Tensor] = {}
        counts: dict[str, list[int]] = {}
        for number, own in enumerate(about):
            index = torch.tensor(own["rows"], dtype=torch.int64)
            shard_R[index] = number
            for name, each in own["columns"].items():
                begin_R = begins.setdefault(name, torch.empty(rows, dtype=torch.int64))
                begin_R[index] = offsets(each)[:-1]
                count_R = counts.setdefault(name, [0] * rows)
                for row, count in zip(own["rows"], each, strict=True):
                    count_R[row] = count
        return cls(
            folder=folder,
            files=tuple(files),
            shard_R=shard_R,
            begins=begins,
            offsets={name: offsets(each) for name, each in counts.items()},
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is kept."""
        return tuple(self.begins)

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.files)

    def __getitem__(self, name: str) -> ShardStates:
        return ShardStates(shards=self, name=name, offsets_R1=self.offsets[name])

    def read(self, shard: int, name: str, positions_n: Tensor | slice) -> Tensor:
        """Return a column's numbers at some positions of a file; eight-bit ones as float32."""
        file = self._open(shard)
        stored: Tensor = file.get_tensor(name)
        if not is_float8(stored.dtype):
            return stored[positions_n]
        bits = stored.view(torch.uint8)[positions_n]  # torch cannot pick from eight-bit floats
        scale: Tensor = file.get_tensor(name + _SCALE)
        return bits.view(stored.dtype).float() * scale[positions_n]

    def shape(self, name: str) -> tuple[int, torch.dtype]:
        """Return a column's numbers per position, and as which they are stored."""
        stored = self._open(0).get_tensor(name)
        return stored.shape[1], stored.dtype

    def _open(self, shard: int) -> Any:
        """Return a mapped file; the one that was not used for longest is let go."""
        if shard not in self._mapped:
            self._mapped[shard] = safe_open(self.files[shard], framework="pt")
            while len(self._mapped) > _OPEN:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(shard)
        return self._mapped[shard]

    def put(self, folder: Path) -> None:
        """Let another folder of the same file system have the files too, or instead where it has no hard links."""
        folder.mkdir(parents=True)
        for file in sorted(self.folder.iterdir()):
            try:
                os.link(file, folder / file.name)
            except OSError:
                file.rename(folder / file.name)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardStates(States):
    """One column of `Shards`.

    Attributes:
        shards: the files.
        name: of the column.
    """

    shards: Shards
    name: str
    offsets_R1: Tensor

    @property
    def width(self) -> int:
        """Numbers per position."""
        return self.shards.shape(self.name)[0]

    @property
    def dtype(self) -> torch.dtype:
        """As which they are stored."""
        return self.shards.shape(self.name)[1]

    def at(self, positions_n: Tensor) -> Tensor:
        """Read some positions."""
        row_n = torch.searchsorted(self.offsets_R1, positions_n, right=True) - 1
        place_n = self.shards.begins[self.name][row_n] + positions_n - self.offsets_R1[row_n]
        shard_n = self.shards.shard_R[row_n]
        found: Tensor | None = None
        for shard, chosen_n in self._by_shard(shard_n):
            values = self.shards.read(shard, self.name, place_n[chosen_n])
            if len(values) == len(positions_n):
                return values
            if found is None:
                found = values.new_empty(len(positions_n), values.shape[1])
            found[chosen_n] = values
        return self.shards.read(0, self.name, slice(0)) if found is None else found

    @staticmethod
    def _by_shard(shard_n: Tensor) -> Iterator[tuple[int, Tensor | slice]]:
        numbers = torch.unique(shard_n).tolist()
        for number in numbers:
            yield number, slice(None) if len(numbers) == 1 else (shard_n == number).nonzero()[:, 0]
