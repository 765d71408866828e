"""What of a plan does not fit into memory or on the disk, and what to set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from omegaconf import DictConfig

from pkt.config import SplitSizes
from pkt.planning.cost import Cost
from pkt.planning.costs import costs
from pkt.planning.estimate import Estimate, peak, settled
from pkt.planning.facts import pair_of
from pkt.planning.machine import GB, LIBRARIES
from pkt.planning.memory import Item
from pkt.planning.remedies import remedy
from pkt.planning.rows import Counts, Rows
from pkt.planning.wanted import wanted


def lacking(own: Estimate) -> list[str]:
    """Return what does not fit, each with what to set."""
    machine, found = own.machine, list[str]()
    if machine.memory is None:
        found.append("the memory of the device is not known: plan.memory_gb=<of one device> says what fits")
    else:
        here = Memory(limit=machine.memory, counts=own.on_device, processes=own.processes)
        found += _memory(own, here if machine.gpu else replace(here, limit=machine.memory / own.processes))
    if machine.gpu:
        spare = machine.host - (own.processes - 1) * LIBRARIES
        found += _memory(
            own, Memory(limit=spare, counts=lambda item: item.host, of=" of the machine's memory")
        )
    return [*found, *_disk(own)]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Some memory.

    Attributes:
        limit: bytes that are there.
        counts: which items of a moment are in it.
        processes: how many share the rows and have such memory each.
        of: what messages call it.
    """

    limit: float
    counts: Callable[[Item], bool]
    processes: int = 1
    of: str = ""

    def peak(self, cost: Cost) -> tuple[str, float]:
        """Return when a stage needs most of it, and the bytes."""
        return peak(cost, self.counts, self.processes)


def _memory(own: Estimate, there: Memory) -> Iterator[str]:
    for name, cost in own.left.items():
        when, size = there.peak(cost)
        if size > there.limit:
            words, least = remedy(own.cfg, partial(_peak_again, own, there, name), there.limit)
            largest = max(filter(there.counts, cost.moments[when]), key=lambda item: item.bytes)
            yield (
                f"{name} takes {size / GB:.1f} GB{there.of} at '{when}' ({largest.what}: {largest.bytes / GB:.1f} GB) "
                f"and {there.limit / GB:.1f} GB are there; {_advice(words, least, there.limit)}"
            )


def _peak_again(own: Estimate, there: Memory, name: str, cfg: DictConfig) -> float:
    """Return the peak of a stage under other settings."""
    return there.peak(_again(own, cfg)[name])[1]


def _again(own: Estimate, cfg: DictConfig) -> dict[str, Cost]:
    """Return what the stages take under other settings."""
    config = settled(cfg)
    pair = pair_of(config.model, own.machine.gpu)
    rows = _fewer(own.known.rows, own.wanted.config.data.sizes, config.data.sizes)
    return costs(wanted(config, pair.teacher, pair.student, pair.kept, cfg), rows)


def _disk(own: Estimate) -> Iterator[str]:
    size = own.disk + max((cost.scratch for cost in own.left.values()), default=0.0)
    kept, most = sum(cost.kept for cost in own.left.values()), own.wanted.config.capture.max_gb
    less = "method.cache_dtype=bfloat16 or float8_e4m3, or capture.mode=window, keeps less; " if kept else ""
    if size > own.machine.disk:
        yield (
            f"the results take {size / GB:.1f} GB of disk and {own.machine.disk / GB:.1f} GB are free: {less}set "
            "output_dir (PKT_OUTPUT_DIR) to a larger disk, or lower data.sizes.train; `pkt store prune` removes what "
            "nothing needs"
        )
    if most is not None and kept > most * GB:
        yield (
            f"{kept / GB:.1f} GB of the teacher's states and outputs would be kept, which capture.max_gb={most:g} "
            f"refuses: {less.removesuffix('; ')}"
        )


def _fewer(rows: Counts, before: SplitSizes, now: SplitSizes) -> Counts:
    """Return the rows of smaller splits: the first of each."""
    left = {}
    for name in ("align", "train"):
        own, share = rows[name], getattr(now, name) / getattr(before, name)
        count = max(1, round(len(own) * share))
        left[name] = Rows(lengths=own.lengths[:count], answers=own.answers[:count])
    return replace(rows, splits=rows.splits | left)


def _advice(words: list[str], least: float, limit: float) -> str:
    if words and least <= limit:
        return f"it takes {least / GB:.1f} GB with {' '.join(words)}"
    return f"{' '.join(words) or 'no setting'} brings it to {least / GB:.1f} GB, which needs more memory"
