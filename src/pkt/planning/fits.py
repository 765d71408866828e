"""What of a plan does not fit into memory or on the disk, and what to set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from omegaconf import DictConfig

from pkt.planning.costs import costs
from pkt.planning.estimate import Estimate, peak, settled
from pkt.planning.facts import pair_of
from pkt.planning.machine import GB, LIBRARIES
from pkt.planning.memory import total
from pkt.planning.remedies import remedy
from pkt.planning.rows import Counts, Rows
from pkt.planning.wanted import wanted


def lacking(own: Estimate) -> list[str]:
    """Return what does not fit, each with what to set."""
    return [*_memory(own), *_host(own), *_disk(own)]


def _memory(own: Estimate) -> Iterator[str]:
    if (limit := own.machine.memory) is None:
        yield "the memory of the device is not known: plan.memory_gb=<of one device> says what fits"
        return
    limit /= 1 if own.machine.gpu else own.processes
    for name, cost in own.left.items():
        when, size = peak(cost, own.machine, own.processes)
        if size > limit:
            words, least = remedy(own.cfg, partial(_again, own, name), limit)
            largest = max(cost.moments[when], key=lambda item: item.bytes)
            yield (
                f"{name} takes {size / GB:.1f} GB at '{when}' ({largest.what}: {largest.bytes / GB:.1f} GB) and "
                f"{limit / GB:.1f} GB are there; {_advice(words, least, limit, own.machine.gpu)}"
            )


def _again(own: Estimate, name: str, cfg: DictConfig) -> float:
    """Return a stage's peak under other settings."""
    config = settled(cfg)
    pair = pair_of(config.model, own.machine.gpu)
    rows = fewer(own.known.rows, config.data.sizes.train / own.wanted.config.data.sizes.train)
    found = costs(wanted(config, pair.teacher, pair.student, pair.kept, own.cfg.mapping), rows)
    return peak(found[name], own.machine, own.processes)[1]


def _host(own: Estimate) -> Iterator[str]:
    if not own.machine.gpu:
        return
    for name, cost in own.left.items():
        size = (
            max((total(items, on=lambda item: item.host) for items in cost.moments.values()), default=0.0)
            + own.processes * LIBRARIES
        )
        if size > own.machine.host:
            yield (
                f"{name} keeps {size / GB:.1f} GB in the machine's memory and {own.machine.host / GB:.1f} GB are free: "
                "lower data.sizes.train, mapping.count or method.cache_dtype"
            )


def _disk(own: Estimate) -> Iterator[str]:
    size = own.disk + max((cost.scratch for cost in own.left.values()), default=0.0)
    if size > own.machine.disk:
        yield (
            f"the results take {size / GB:.1f} GB of disk and {own.machine.disk / GB:.1f} GB are free: set "
            "output_dir (PKT_OUTPUT_DIR) to a larger disk, or lower data.sizes.train; `pkt store prune` removes what "
            "nothing needs"
        )


def fewer(rows: Counts, share: float) -> Counts:
    """Return rows of which a share of the train split is left."""
    train = rows["train"]
    count = max(1, round(len(train) * share))
    left = Rows(lengths=train.lengths[:count], answers=train.answers[:count])
    return replace(rows, splits=rows.splits | {"train": left})


def _advice(words: list[str], least: float, limit: float, gpu: bool) -> str:
    if words and least <= limit:
        return f"it takes {least / GB:.1f} GB with {' '.join(words)}"
    more = (
        "a device with more memory"
        if not gpu
        else "a device with more memory, or model.teacher.device_map=auto over several"
    )
    tried = f"{' '.join(words)} leaves {least / GB:.1f} GB; " if words else ""
    return f"{tried}it needs {more}"
