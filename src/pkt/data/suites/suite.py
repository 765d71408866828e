"""A suite: an upstream set, how its rows read as prompt and answer, and which of them a transfer may see.

    upstream train side -> pools -> rows that fit -> in the order of a hash -> extract | align | validation | train
    upstream test split -> test rows, which carry the upstream row for lm-eval's own task

A prompt is what lm-eval's zero-shot prompt of the task is for that row, so training and scoring see the same text.
Splits are disjoint by construction: a pool is cut, and no question is in it twice or in the test split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pkt.config import BenchmarkConfig, SplitSizes
from pkt.data.lengths import Fitting
from pkt.data.suites.upstream import Doc, Upstream, read, required
from pkt.errors import PktError

Row = dict[str, Any]
FRONT = ("extract", "align", "validation")  # cut from the front of a pool; train is taken from its end
SHARE = 8  # of a pool that also trains, each of them takes at most one row in so many


@dataclass(frozen=True, kw_only=True)
class Suite:
    """How one benchmark's rows come about.

    Attributes:
        name: the task's name.
        upstream: its set.
        prompt: lm-eval's zero-shot prompt of a row.
        answer: the text that the prompt should be continued by.
        question: what makes a row the same as another.
        train: upstream splits that train, together; the first is required.
        own: split -> upstream splits that supply it where they are there; it is cut from the train side otherwise.
        test_split: upstream split that is scored.
        train_side: other rows to train on (id, prompt, answer), for a set without a train split.
    """

    name: str
    upstream: Upstream
    prompt: Callable[[Doc], str]
    answer: Callable[[Doc], str]
    question: Callable[[Doc], str]
    train: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    test_split: str = "test"
    train_side: Callable[[BenchmarkConfig], list[Row]] | None = None

    def rows(
        self,
        split: str,
        benchmark: BenchmarkConfig,
        sizes: SplitSizes,
        seed: int | None = None,
        fitting: Fitting | None = None,
    ) -> list[Row]:
        """Return the rows of a split: for ``train`` all that remain, for the others at most their size.

        Args:
            split: extract, align, train, validation or test.
            benchmark: says where the data lies.
            sizes: rows per split.
            seed: of the draw.
            fitting: leaves out rows that are too long, before any are drawn; test rows all stay.

        Raises:
            PktError: the set is not to be had, or has too few rows.
        """
        if split == "test":
            return self._test(benchmark)
        pools, uses = self._pools(benchmark, fitting)
        name = uses[split]
        front = [part for part in FRONT if uses[part] == name]
        rows = divided(pools[name], front, sizes, trains=uses["train"] == name, seed=seed or 0).get(split, [])
        if not rows:
            longer, total = fitting.dropped.get(f"{self.name}/{name}", (0, 0)) if fitting else (0, 0)
            told = (
                f" ({longer} of {total} have more tokens than the models' contexts or data.max_length allow)"
                if longer
                else ""
            )
            raise PktError(
                f"{self.upstream.title}: {len(pools[name])} rows are too few for a {split} split{told}; "
                f"{SHARE} or more are needed."
            )
        return [{**row, "split": split} for row in rows]

    def _test(self, benchmark: BenchmarkConfig) -> list[Row]:
        docs = required(self.upstream, self.test_split, benchmark.data_dir)
        rows = []
        for row, doc in zip(self._read_as_rows(docs, "test"), docs, strict=True):
            row["doc"] = json.dumps(doc, sort_keys=True, ensure_ascii=False)
            rows.append({key: row[key] for key in ("id", "prompt", "answer", "doc")} | {"split": "test"})
        return rows

    def _pools(
        self, benchmark: BenchmarkConfig, fitting: Fitting | None
    ) -> tuple[dict[str, list[Row]], dict[str, str]]:
        """Return the pools of rows that fit, and which pool each split is taken from."""
        held = self._held(benchmark)

        def fit(pool: str, rows: list[Row]) -> list[Row]:
            distinct = self._distinct(rows, held)
            return distinct if fitting is None else fitting.kept(f"{self.name}/{pool}", distinct)

        pools = {"train": fit("train", self._train(benchmark))}
        uses = dict.fromkeys((*FRONT, "train"), "train")
        for split, names in self.own.items():
            pool = "+".join(names)
            if pool not in pools:
                docs = [self._supplied(name, benchmark) for name in names]
                pools[pool] = fit(pool, [row for rows in docs for row in rows])
            if pools[pool]:
                uses[split] = pool
        return pools, uses

    def _train(self, benchmark: BenchmarkConfig) -> list[Row]:
        if self.train_side is not None:
            return self.train_side(benchmark)
        first, *more = self.train
        rows = self._read_as_rows(required(self.upstream, first, benchmark.data_dir), first)
        return rows + [row for name in more for row in self._supplied(name, benchmark)]

    def _supplied(self, upstream_split: str, benchmark: BenchmarkConfig) -> list[Row]:
        docs = read(self.upstream, upstream_split, benchmark.data_dir) or []
        return self._read_as_rows(docs, upstream_split)

    def _read_as_rows(self, docs: list[Doc], upstream_split: str) -> list[Row]:
        return [self._row(doc, f"{self.name}/{upstream_split}/{number}") for number, doc in enumerate(docs)]

    def _row(self, doc: Doc, row_id: str) -> Row:
        try:
            question = self.question(doc)
            return {
                "id": row_id,
                "prompt": self.prompt(doc),
                "answer": self.answer(doc),
                "question": question,
            }
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PktError(
                f"row {row_id} (counted from 0) is not as {self.upstream.title}'s rows are: "
                f"{type(error).__name__} {error}. Mend the file that benchmark.data_dir points at."
            ) from error

    def _held(self, benchmark: BenchmarkConfig) -> set[str]:
        """Return the questions that are scored; none where the user supplies no test split."""
        if self.train_side is not None:
            return set()
        docs = read(self.upstream, self.test_split, benchmark.data_dir) or []
        return {_same(self.question(doc)) for doc in docs}

    @staticmethod
    def _distinct(rows: list[Row], held: set[str]) -> list[Row]:
        """Keep the first row of each question; `held` grows by what is kept, over all pools of a suite."""
        kept = []
        for row in rows:
            key = _same(row["question"])
            if key not in held and row["answer"].strip():
                held.add(key)
                kept.append({name: row[name] for name in ("id", "prompt", "answer")})
        return kept


def divided(
    rows: list[Row], front: list[str], sizes: SplitSizes, *, trains: bool, seed: int
) -> dict[str, list[Row]]:
    """Cut a pool into disjoint splits, in an order that depends on ids and seed alone.

    Args:
        rows: the pool, with ids.
        front: splits cut from its front.
        sizes: how many rows each takes, at most; and at most an eighth of a pool that also trains, or an equal part.
        trains: whether the rest is for training (from the other end, so it changes little with the sizes).
        seed: of the order.
    """
    order = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row['id']}".encode()).hexdigest())
    most = len(rows) // (SHARE if trains else max(1, len(front)))
    parts: dict[str, list[Row]] = {}
    start = 0
    for split in front:
        size = min(int(getattr(sizes, split)), most)
        parts[split] = order[start : start + size]
        start += size
    if trains:
        parts["train"] = order[start:][::-1]
    return parts


def _same(question: str) -> str:
    return " ".join(question.split())
