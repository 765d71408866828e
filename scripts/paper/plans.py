"""What a target runs: requests, and which of them are compared with each other.

Cell (a method with its words) -> Group (cells of one pair, compared with the first) -> Plan (a job per cell and seed)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pkt.errors import RequestError

NANO = ("benchmark=nano", "threads=1")
REAL = ("experiment=real",)
# pairs with a benchmark of their own, on whose tasks together one student is trained
OWN: Mapping[str, tuple[str, ...]] = {
    "nano": NANO,
    "nano-peer": NANO,
    "nano-code": NANO,
    "nano-cut": NANO,
    "nano-narrow": NANO,
    "nano-tokens": NANO,
    "smollm2-135m-to-pruned": REAL,
    "smollm2-135m-to-half": REAL,
}
AMOUNTS = ("data.sizes.", "optim.")  # what may be made smaller for a trial, in words above the tables


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request: `pkt <verb> <words>`; its folder is called by its name."""

    name: str
    verb: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A method as a group runs it.

    Attributes:
        method: its name.
        words: of the request, beside those of the pair.
        form: what sets it apart from the method's other cells in its group.
        control: whether it is a form of SemAlign with something random in it.
    """

    method: str
    words: tuple[str, ...]
    form: str = ""
    control: bool = False

    @property
    def name(self) -> str:
        """What tables and pictures call it."""
        return f"{self.method} ({self.form})" if self.form else self.method


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells of one pair that are compared with the first of them.

    Attributes:
        title: of its tables; no two groups of a plan have the same one.
        pair: the model pair.
        cells: with different names.
        at: labelled rows or optimiser steps, where a picture has them as its axis.
    """

    title: str
    pair: str
    cells: tuple[Cell, ...]
    at: int = 0

    @property
    def form(self) -> Cell:
        """What a group is about: the last cell, its controls aside."""
        return [cell for cell in self.cells if not cell.control][-1]

    def words(self, cell: Cell, seed: int) -> tuple[str, ...]:
        """Return the request of a cell."""
        return own_words(self.pair, seed, *cell.words)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of one target on one pair.

    Attributes:
        target: what was asked for, such as `table1`.
        pair: the model pair that was asked for.
        title: of the result.
        jobs: in the order in which they start.
        groups: what is compared with what, where the runs alone do not say it.
        seeds: of each cell of the groups.
        lead: what a reader has to know first, where nothing of it was published.
    """

    target: str
    pair: str
    title: str
    jobs: tuple[Job, ...]
    groups: tuple[Group, ...] = ()
    seeds: tuple[int, ...] = ()
    lead: str = ""


def grouped(
    target: str, pair: str, title: str, groups: Iterable[Group], seeds: Sequence[int], lead: str
) -> Plan:
    """Return the plan of some groups; a request that two of them share is one job.

    Args:
        target: see `Plan`, as all others.
        pair: where the result goes.
        title: of the result.
        groups: in the order of the tables.
        seeds: of each cell.
        lead: first sentences.
    """
    groups = tuple(groups)
    jobs: dict[tuple[str, ...], Job] = {}
    for group in groups:
        for cell in group.cells:
            for seed in seeds:
                words = group.words(cell, seed)
                name = f"{_slug(group.title)}_{_slug(cell.name)}_seed-{seed}"
                jobs.setdefault(words, Job(name=name, verb="run", words=words))
    return Plan(
        target=target,
        pair=pair,
        title=title,
        jobs=tuple(jobs.values()),
        groups=groups,
        seeds=tuple(seeds),
        lead=lead,
    )


def with_words(plan: Plan, words: Sequence[str]) -> Plan:
    """Return a plan that says which of its amounts more words for every request have changed.

    Raises:
        RequestError: a word that sets alike what tells the jobs apart, and with it arms, tables and folders.
    """
    jobs = [dict(word.split("=", 1) for word in job.words if "=" in word) for job in plan.jobs]
    own = {key for job in jobs for key in job}
    apart = {key for key in own if len({job.get(key) for job in jobs}) > 1} | {"seed", "model"}
    keys = {word: word.partition("=")[0].lstrip("+") for word in words}
    for word, key in keys.items():
        if key in apart and not key.startswith(AMOUNTS):
            raise RequestError(
                f"got '{word}', and {plan.target} itself decides {key}, by which its jobs are told apart; leave it out "
                "(seeds are --seeds, the pair is --pair)"
            )
    changed = " ".join(word for word, key in keys.items() if key in own and key.startswith(AMOUNTS))
    if not (changed and plan.lead):
        return plan
    return replace(
        plan, lead=f"{plan.lead} But every request had {changed}, whatever titles and columns say."
    )


def own_job(pair: str, seed: int, *words: str) -> Job:
    """Return a job on a pair with a benchmark of its own."""
    return Job(name=job_name(*words, f"seed={seed}"), verb="run", words=own_words(pair, seed, *words))


def own_words(pair: str, seed: int, *words: str) -> tuple[str, ...]:
    """Return a request on a pair with a benchmark of its own."""
    return (*words, f"model={pair}", f"seed={seed}", *OWN[pair])


def every_layer(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words in which random pairs are as many as the default's: one for each of the student's layers."""
    return (*words, "mapping.count=null") if "mapping=random" in words else words


def job_name(*words: str) -> str:
    """Return a folder's name for some words of a request."""
    kept = [word.removeprefix("method=") for word in words if not word.startswith("benchmark.")]
    return "_".join(kept).replace("=", "-").replace("/", "-")


def _slug(title: str) -> str:
    """Return a title as a part of a folder's name."""
    return re.sub(r"[^a-z0-9_.]+", "-", re.sub(r"(?<=\d),(?=\d)", "", title.lower())).strip("-")
