"""`pkt plan <request>`: the table of its stages, what does not fit and what to set, and `plan.json` in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pkt import console
from pkt.config import Config, settle_by_method
from pkt.durable import write_atomically
from pkt.planning.cost import Cost
from pkt.planning.costs import costs
from pkt.planning.facts import Pair, pair_of
from pkt.planning.looked import REUSED, Looked, look
from pkt.planning.machine import GB, LIBRARIES, Machine, machine_of, on_gpu
from pkt.planning.memory import Item, total
from pkt.planning.remedies import remedy
from pkt.planning.rows import Counts, Rows
from pkt.planning.wanted import Wanted, wanted

PLAN = "plan.json"
COLUMNS = ("stage", "result", "rows", "tokens", "TFLOP", "disk GB", "memory GB", "when", "time")


def answer(cfg: DictConfig, run_dir: Path) -> None:
    """Print what a request will take, and write it down.

    Args:
        cfg: the composed request.
        run_dir: this run's folder.

    Raises:
        RequestError: the request is wrong, or has parts of which a plan does not know what they take.
    """
    config = settled(cfg)
    pair = pair_of(config.model, on_gpu(config.device))
    known = look(cfg, config, pair)
    asked = read(cfg, pair)
    made = Estimate(
        cfg=cfg, pair=pair, known=known, wanted=asked, machine=machine_of(config, pair.student), costs=costs(asked, known.rows)
    )
    console.table(f"{config.model.name}, {config.method['name']}, {config.benchmark.name}", COLUMNS, list(made.rows()))
    for sentence in made.told():
        console.say(sentence)
    for sentence in made.lacking:
        console.warn(sentence)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / PLAN, json.dumps(made.plain(), indent=1) + "\n")


def settled(cfg: DictConfig) -> Config:
    """Return a request's config, with the method's own values where it leaves them open."""
    config = cast(Config, OmegaConf.to_object(cfg))
    settle_by_method(config.optim, config.method["name"])
    return config


def read(cfg: DictConfig, pair: Pair) -> Wanted:
    """Return what a request asks for."""
    return wanted(settled(cfg), pair.teacher, pair.student, pair.kept, cfg.mapping)


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

    @cached_property
    def left(self) -> dict[str, Cost]:
        """The stages that have to be computed, or may have to be."""
        return {name: cost for name, cost in self.costs.items() if self.known.state(name) != REUSED}

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield the rows of the table: one per stage, and their sum."""
        for name, cost in self.costs.items():
            state, (when, size) = self.known.state(name), peak(cost, self.machine, self.processes)
            if name not in self.left:
                yield name, state, "", "", "", "", "", "", ""
                continue
            tokens = f"{cost.teacher_tokens + cost.student_tokens:,}"
            least, most = self.machine.seconds(cost.operations, cost.reads, self.processes)
            yield (
                *(name, state, f"{cost.rows:,}", tokens, f"{cost.operations / 1e12:,.2f}", f"{cost.disk / GB:.3f}"),
                *(f"{size / GB:.2f}", when, span(least, most)),
            )
        least, most = self.seconds
        sizes = [peak(cost, self.machine, self.processes)[1] for cost in self.left.values()]
        operations = sum(cost.operations for cost in self.left.values())
        yield "all", "", "", "", f"{operations / 1e12:,.2f}", f"{self.disk / GB:.3f}", f"{max(sizes, default=0) / GB:.2f}", "", span(least, most)

    @property
    def seconds(self) -> tuple[float, float]:
        """The least and the largest number of seconds of all that is left."""
        found = [self.machine.seconds(cost.operations, cost.reads, self.processes) for cost in self.left.values()]
        return sum(least for least, _ in found), sum(most for _, most in found)

    @property
    def disk(self) -> float:
        """Bytes that are written and stay."""
        return sum(cost.disk for cost in self.left.values())

    def told(self) -> Iterator[str]:
        """Yield what a reader has to know of the figures."""
        teacher, student = self.pair.teacher, self.pair.student
        yield f"models: {teacher.parameters / 1e9:.2f} to {student.parameters / 1e9:.2f} billion parameters ({self.pair.told})"
        yield f"rows: {self.known.rows.told}"
        yield self.known.told
        if self.wanted.scores or self.wanted.similarity:
            layers = ", ".join(map(str, self.wanted.students))
            yield f"layers: the mapping asks the models, which extract does; assumed here: student layers {layers}"
        where = "of a GPU" if self.machine.gpu else "of a process, libraries included"
        yield f"memory: {where}, at the moment that is named; time at {self.machine.told}, without start-up"
        if self.processes > 1:
            yield (
                f"processes: {self.processes} that share the rows, each with whole models; this version of pkt runs in one, "
                "so that these figures say what sharing could give"
            )
        for name, cost in self.left.items():
            if cost.scratch:
                yield f"while {name} runs: {cost.scratch / GB:.2f} GB more on the disk, for going on after a stop"

    @cached_property
    def lacking(self) -> list[str]:
        """What does not fit, and what to set."""
        return [*self._memory(), *self._host(), *self._disk()]

    def _memory(self) -> Iterator[str]:
        if (limit := self.machine.memory) is None:
            yield "the memory of the device is not known: plan.memory_gb=<of one device> says what fits"
            return
        limit /= 1 if self.machine.gpu else self.processes
        for name, cost in self.left.items():
            when, size = peak(cost, self.machine, self.processes)
            if size > limit:
                words, least = remedy(self.cfg, partial(self._again, name), limit)
                largest = max(moment(cost, when), key=lambda item: item.bytes)
                yield (
                    f"{name} takes {size / GB:.1f} GB at '{when}' ({largest.what}: {largest.bytes / GB:.1f} GB) and "
                    f"{limit / GB:.1f} GB are there; {_advice(words, least, limit, self.machine.gpu)}"
                )

    def _again(self, name: str, cfg: DictConfig) -> float:
        """Return a stage's peak under other settings."""
        config = settled(cfg)
        pair = pair_of(config.model, self.machine.gpu)
        rows = fewer(self.known.rows, config.data.sizes.train / self.wanted.config.data.sizes.train)
        found = costs(wanted(config, pair.teacher, pair.student, pair.kept, self.cfg.mapping), rows)
        return peak(found[name], self.machine, self.processes)[1]

    def _host(self) -> Iterator[str]:
        if not self.machine.gpu:
            return
        for name, cost in self.left.items():
            size = max(
                (total(items, on=lambda item: item.host) for items in cost.moments.values()), default=0.0
            ) + self.processes * LIBRARIES
            if size > self.machine.host:
                yield (
                    f"{name} keeps {size / GB:.1f} GB in the machine's memory and {self.machine.host / GB:.1f} GB are free: "
                    "lower data.sizes.train, mapping.count or method.cache_dtype"
                )

    def _disk(self) -> Iterator[str]:
        size = self.disk + max((cost.scratch for cost in self.left.values()), default=0.0)
        if size > self.machine.disk:
            yield (
                f"the results take {size / GB:.1f} GB of disk and {self.machine.disk / GB:.1f} GB are free: set "
                "output_dir (PKT_OUTPUT_DIR) to a larger disk, or lower data.sizes.train; `pkt store prune` removes what "
                "nothing needs"
            )

    def plain(self) -> dict[str, Any]:
        """Return all of it, JSON-like."""
        stages = {
            name: asdict(replace(cost, moments={}))
            | {
                "result": self.known.state(name),
                "key": self.known.keys.get(name),
                "seconds": self.machine.seconds(cost.operations, cost.reads, self.processes),
                "memory": {when: {item.what: item.bytes for item in items} for when, items in cost.moments.items()},
                "peak": peak(cost, self.machine, self.processes)[1],
            }
            for name, cost in self.costs.items()
        }
        return {"stages": stages, "machine": asdict(self.machine), "told": list(self.told()), "lacking": self.lacking}


def moment(cost: Cost, when: str) -> tuple[Item, ...]:
    """Return what is in memory at a moment of a stage."""
    return cost.moments.get(when, ())


def peak(cost: Cost, machine: Machine, processes: int) -> tuple[str, float]:
    """Return the moment at which a stage needs most memory of a device, and the bytes."""
    sizes = {
        when: total(items, on=lambda item: not (machine.gpu and item.host), processes=processes)
        for when, items in cost.moments.items()
    }
    when = max(sizes, key=lambda name: sizes[name], default="")
    return when, sizes.get(when, 0.0) + LIBRARIES


def fewer(rows: Counts, share: float) -> Counts:
    """Return rows of which a share of the train split is left."""
    train = rows["train"]
    count = max(1, round(len(train) * share))
    left = Rows(lengths=train.lengths[:count], answers=train.answers[:count])
    return replace(rows, splits=rows.splits | {"train": left})


def _advice(words: list[str], least: float, limit: float, gpu: bool) -> str:
    if words and least <= limit:
        return f"it takes {least / GB:.1f} GB with {' '.join(words)}"
    more = "a device with more memory" if not gpu else "a device with more memory, or model.teacher.device_map=auto over several"
    tried = f"{' '.join(words)} leaves {least / GB:.1f} GB; " if words else ""
    return f"{tried}it needs {more}"


def span(least: float, most: float) -> str:
    """Return a range of seconds as a reader says it."""
    unit, name = next((size, name) for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")) if most >= size or size == 1)
    return f"{least / unit:.2g} to {most / unit:.2g} {name}"
