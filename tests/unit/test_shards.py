"""What is kept on disk is what was computed, in files of bounded size, whole or not at all, whoever stops it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pkt.data.batching import sorted_batches
from pkt.errors import PktError
from pkt.training.shards import Column, Shards, rounded, write_shards
from pkt.training.states import Reordered, RowStates
from pkt.training.teacher import Kept, TopRows

FLOAT8 = torch.float8_e4m3fn

COUNTS = [3, 0, 5, 1, 4, 2, 6, 1]
ROWS = len(COUNTS)
WIDTHS = {"a": 4, "b": 7}


def truth(name: str, row: int) -> Tensor:
    """(n, W) of one row, different for every row, column and position."""
    generator = torch.Generator().manual_seed(100 * row + ord(name))
    return torch.randn(COUNTS[row], WIDTHS[name], generator=generator)


def columns(dtype: torch.dtype = torch.float32) -> dict[str, Column]:
    return {name: Column(counts=COUNTS, width=width, dtype=dtype) for name, width in WIDTHS.items()}


class Watched:
    """Computes batches, and remembers which; stops with an error at the one that it is told."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.seen: list[list[int]] = []
        self.fail_at = fail_at

    def __call__(self, rows: list[int]) -> dict[str, Tensor]:
        if self.fail_at is not None and len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append(rows)
        return {name: torch.cat([truth(name, row) for row in rows]) for name in WIDTHS}


def write(folder, compute=None, *, limit=200, batch=2, dtype=torch.float32) -> Shards:
    return write_shards(
        folder, columns(dtype), sorted_batches(COUNTS, batch), compute or Watched(), limit=limit
    )


@pytest.mark.parametrize("limit", [1, 200, 10**6])
@pytest.mark.parametrize("rows", [[0], [6, 0, 3], [1], list(range(ROWS))[::-1], []])
def test_rows_come_back_in_the_order_asked_for(tmp_path, limit, rows):
    shards = write(tmp_path, limit=limit)
    assert (len(shards.files) == 1) == (limit == 10**6)
    for name in WIDTHS:
        expected = torch.cat([torch.empty(0, WIDTHS[name]), *(truth(name, row) for row in rows)])
        assert torch.equal(shards[name].of(rows), expected)
        padded = shards[name].padded(rows, 9)
        for b, row in enumerate(rows):
            assert torch.equal(padded[b, : COUNTS[row]], truth(name, row))
            assert not padded[b, COUNTS[row] :].any()
    memory = RowStates.empty(COUNTS, 4, torch.float32)
    memory.write(list(range(ROWS)), torch.cat([truth("a", row) for row in range(ROWS)]))
    assert torch.equal(memory.of(rows), shards["a"].of(rows))
    assert torch.equal(memory.flat(), shards["a"].flat())
    order = torch.randperm(sum(COUNTS), generator=torch.Generator().manual_seed(1))
    moved = [Reordered(states=own, order_N=order) for own in (memory, shards["a"])]
    assert torch.equal(moved[0].of(rows), moved[1].of(rows))
    assert torch.equal(moved[0].flat(), memory.flat()[order])


def test_files_are_as_large_as_said_and_only_rows_are_never_cut(tmp_path):
    shards = write(tmp_path, limit=200, batch=1)
    per_position = sum(column.bytes_each for column in columns().values())
    assert per_position == 4 * (4 + 7)
    held = [
        sum(COUNTS[row] for row in range(ROWS) if shards.shard_R[row] == i) for i in range(len(shards.files))
    ]
    assert sum(held) == sum(COUNTS)
    assert all(count * per_position <= 200 or count in COUNTS for count in held)
    assert sum(column.bytes for column in columns().values()) == sum(COUNTS) * per_position
    assert shards["a"].bytes == sum(COUNTS) * 16


@pytest.mark.parametrize("fail_at", range(4))
def test_a_capture_that_was_stopped_goes_on_file_by_file_with_the_same_bits(tmp_path, fail_at):
    whole = write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut", Watched(fail_at))
    left = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cut").glob("*.safetensors")}
    again = Watched()
    shards = write(tmp_path / "cut", again)
    assert [file.read_bytes() for file in shards.files] == [file.read_bytes() for file in whole.files]
    for name, time in left.items():  # what was whole is not written again
        assert (tmp_path / "cut" / name).stat().st_mtime_ns == time
    done = {row for i in range(len(left)) for row in range(ROWS) if whole.shard_R[row] == i}
    assert not done & {row for rows in again.seen for row in rows}


def test_every_row_is_told_whether_it_was_computed_or_found(tmp_path):
    for _ in range(2):
        told: list[int] = []
        write_shards(tmp_path, columns(), sorted_batches(COUNTS, 2), Watched(), limit=200, listen=told.extend)
        assert sorted(told) == list(range(ROWS))


@pytest.mark.parametrize("damage", ["content", "seal", "missing"])
def test_a_damaged_file_is_computed_again_and_no_other(tmp_path, damage):
    whole = [file.read_bytes() for file in write(tmp_path).files]
    file = sorted(tmp_path.glob("*.safetensors"))[1]
    if damage == "content":
        file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    elif damage == "seal":
        file.with_suffix(".json").write_text('{"file": 1}')
    else:
        file.unlink()
    again = Watched()
    shards = write(tmp_path, again)
    assert [file.read_bytes() for file in shards.files] == whole
    assert {row for rows in again.seen for row in rows} == {r for r in range(ROWS) if shards.shard_R[r] == 1}


def test_batches_that_are_cut_in_another_way_leave_nothing_of_the_first(tmp_path):
    many = len(write(tmp_path, limit=1).files)
    shards = write(tmp_path, limit=10**6, batch=4)
    assert many > len(shards.files) == 1
    assert torch.equal(shards["a"].of([2]), truth("a", 2))
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_without_its_seals_is_one_message(tmp_path):
    write(tmp_path)
    next(tmp_path.glob("*.json")).unlink()
    with pytest.raises(PktError, match="holds no whole states"):
        Shards.open(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, FLOAT8])
def test_fewer_bits_are_read_back_as_they_are_rounded(tmp_path, dtype):
    shards = write(tmp_path, dtype=dtype)
    for row in (0, 2, 6):
        assert torch.equal(shards["b"].of([row]), rounded(truth("b", row), dtype))
    assert shards["b"].dtype == dtype
    assert shards["b"].bytes == sum(COUNTS) * (7 * 2 if dtype == torch.bfloat16 else 7 + 4)


def test_eight_bits_with_a_scale_per_position_bear_a_massive_activation():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(200, 64, generator=generator)
    massive = states.clone()
    massive[:, 3] = 20_000.0

    def error(values: Tensor, dtype: torch.dtype) -> float:
        others = [i for i in range(64) if i != 3]
        found = rounded(values, dtype)[:, others].float()
        return float((found - values[:, others]).norm() / values[:, others].norm())

    integer = (massive / massive.abs().amax(-1, keepdim=True) * 127).round()
    integer = integer * massive.abs().amax(-1, keepdim=True) / 127
    assert error(states, FLOAT8) < 0.04
    assert error(massive, FLOAT8) < 0.3  # subnormal numbers; an int8 has nothing left
    assert float((integer[:, :3] - massive[:, :3]).norm() / massive[:, :3].norm()) == pytest.approx(
        1.0, abs=0.01
    )
    assert error(massive, torch.bfloat16) < 0.004
    assert not rounded(torch.zeros(2, 4), FLOAT8).any()


def test_no_rows_leave_a_file_that_says_so(tmp_path):
    nothing = {"a": Column(counts=[], width=4, dtype=torch.float32)}
    shards = write_shards(tmp_path, nothing, [], Watched(), limit=200)
    assert shards["a"].flat().shape == (0, 4)
    assert shards["a"].of([]).shape == (0, 4)


def test_another_folder_gets_the_same_files(tmp_path):
    shards = write(tmp_path / "one")
    shards.put(tmp_path / "two")
    for folder in ("one", "two"):
        assert torch.equal(Shards.open(tmp_path / folder)["a"].of([2, 0]), shards["a"].of([2, 0]))


def test_files_are_counted_of_states_and_of_distributions(tmp_path):
    shards = write(tmp_path)
    name = next(iter(WIDTHS))
    assert Kept(states={1: shards[name]}).files == Kept(outputs=TopRows(log_probs=shards[name])).files
    assert Kept(outputs=TopRows(log_probs=shards[name])).files == len(shards.files) > 1
    assert Kept().files == 0
