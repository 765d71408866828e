"""The plan of a request as a table, as sentences and as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pkt.build import settle_by_method
from pkt.config import Config
from pkt.methods.keeping import LOSS_SPLITS
from pkt.planning.cost import Cost
from pkt.planning.facts import Pair
from pkt.planning.looked import REUSED, Looked
from pkt.planning.machine import GB, LIBRARIES, Machine
from pkt.planning.memory import Item, total
from pkt.planning.wanted import Wanted, wanted

COLUMNS = ("stage", "result", "rows", "tokens", "TFLOP", "disk GB", "memory GB", "when", "time")


def settled(cfg: DictConfig) -> Config:
    """Return a request's config, with the method's own values where it leaves them open."""
    config = cast(Config, OmegaConf.to_object(cfg))
    settle_by_method(config.optim, config.method)
    return config


def read(cfg: DictConfig, pair: Pair) -> Wanted:
    """Return what a request asks for."""
    return wanted(settled(cfg), pair.teacher, pair.student, pair.kept, cfg)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The plan of a request.

    Attributes:
        cfg: the request.
        pair: its models.
        known: its rows, and what is in the store.
        wanted: what it asks for.
        machine: where it is to run.
        costs: of its stages.
    """

    cfg: DictConfig
    pair: Pair
    known: Looked
    wanted: Wanted
    machine: Machine
    costs: Mapping[str, Cost]

    @property
    def processes(self) -> int:
        """How many processes share the work."""
        return self.wanted.config.plan.processes

    def on_device(self, item: Item) -> bool:
        """Return whether something is in the memory of a device: on a processor everything is."""
        return not (self.machine.gpu and item.host)

    def peak(self, cost: Cost) -> tuple[str, float]:
        """Return the moment at which a stage needs most memory of a device, and the bytes."""
        return peak(cost, self.on_device, self.processes)

    @cached_property
    def left(self) -> dict[str, Cost]:
        """The stages that have to be computed, or may have to be."""
        return {name: cost for name, cost in self.costs.items() if self.known.state(name) != REUSED}

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the rows of the table: one per stage, and all that is left together."""
        for name, cost in self.costs.items():
            if name not in self.left:
                yield name, REUSED, *[""] * (len(COLUMNS) - 2)
                continue
            counts = f"{cost.rows:,}", f"{cost.teacher_tokens + cost.student_tokens:,}"
            when, size = self.peak(cost)
            seconds = self.machine.seconds(cost, self.processes)
            yield (
                name,
                self.known.state(name),
                *counts,
                *_cells(cost.operations, cost.disk, size, when, seconds),
            )
        work = sum(cost.operations for cost in self.left.values())
        size = max((self.peak(cost)[1] for cost in self.left.values()), default=0.0)
        yield "all", "", "", "", *_cells(work, self.disk, size, "", self.seconds)

    @property
    def seconds(self) -> tuple[float, float]:
        """The least and the largest number of seconds of all that is left."""
        found = [self.machine.seconds(cost, self.processes) for cost in self.left.values()]
        return sum(least for least, _ in found), sum(most for _, most in found)

    @property
    def disk(self) -> float:
        """Bytes that are written and stay."""
        return sum(cost.disk for cost in self.left.values())

    def told(self) -> Iterator[str]:
        """Yield what a reader has to know of the figures."""
        teacher, student = self.pair.teacher, self.pair.student
        sizes = " to ".join(f"{shape.parameters / 1e6:,.1f}" for shape in (teacher, student))
        yield f"models: {sizes} million parameters ({self.pair.told})"
        yield f"rows: {self.known.rows.told}"
        yield self.known.told
        if self.wanted.scores or self.wanted.similarity:
            layers = ", ".join(map(str, self.wanted.students))
            yield f"layers: the mapping asks the models, which extract does; assumed here: student layers {layers}"
        where = "of a GPU" if self.machine.gpu else "of a process, libraries included"
        yield f"memory: {where}, at the moment that is named; time at {self.machine.told}, without start-up"
        if self.processes > 1:
            how = "accelerate launch --use_fsdp --fsdp_version 2"
            layers = f"but for the student's layers while it trains ({how})" if self.wanted.shards else ""
            yield f"processes: {self.processes} that share the rows, each with whole models {layers}".rstrip()
        if kept := sum(cost.kept for cost in self.costs.values()):
            tokens = sum(self.known.rows[split].tokens for split in LOSS_SPLITS)
            yield f"kept of the teacher: {kept / max(tokens, 1):,.0f} bytes per token, on the disk"
        for name, cost in self.left.items():
            if cost.scratch:
                yield f"while {name} runs: {cost.scratch / GB:.2f} GB more on the disk, for going on after a stop"

    def plain(self) -> dict[str, Any]:
        """Return all of it, JSON-like."""
        stages = {
            name: asdict(replace(cost, moments={}))
            | {
                "result": self.known.state(name),
                "key": self.known.keys.get(name),
                "seconds": self.machine.seconds(cost, self.processes),
                "memory": {
                    when: {item.what: item.bytes for item in items} for when, items in cost.moments.items()
                },
                "peak": self.peak(cost)[1],
            }
            for name, cost in self.costs.items()
        }
        return {
            "stages": stages,
            "machine": asdict(self.machine),
            "told": list(self.told()),
        }


def peak(cost: Cost, counts: Callable[[Item], bool], processes: int) -> tuple[str, float]:
    """Return the moment at which a stage needs most memory in one process, and the bytes, libraries included.

    Args:
        cost: of the stage.
        counts: which of its items are in that memory.
        processes: how many share the rows.
    """
    sizes = {when: total(items, on=counts, processes=processes) for when, items in cost.moments.items()}
    when = max(sizes, key=lambda name: sizes[name], default="")
    return when, sizes.get(when, 0.0) + LIBRARIES


def _cells(work: float, disk: float, size: float, when: str, seconds: tuple[float, float]) -> tuple[str, ...]:
    return f"{work / 1e12:,.2f}", f"{disk / GB:.3f}", f"{size / GB:.2f}", when, span(*seconds)


def span(least: float, most: float) -> str:
    """Return a range of seconds as a reader says it."""
    unit, name = next(
        (size, name)
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
        if most >= size or size == 1
    )
    return (
        " to ".join(
            f"{size / unit:,.0f}" if size / unit >= 10 else f"{size / unit:.2g}" for size in (least, most)
        )
        + f" {name}"
    )
