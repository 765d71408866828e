"""What the real benchmarks share: pools of upstream rows, and lm-eval's own task file with the papers' protocol.

    upstream train side -> pools -> rows that fit -> in the order of a hash -> extract | align | validation | train
    upstream test split -> rows that carry the upstream row (`doc`) -> lm-eval's task -> samples -> one headline score

The prompt of a row is lm-eval's zero-shot prompt, so training and scoring see the same text. The splits are disjoint:
each pool is cut into them, and no question is in a pool twice or also in the test split.

The protocol: zero-shot, greedy unless answers are drawn, at most `NEW_TOKENS` new tokens. Prompts, stop strings,
filters and metrics are lm-eval's, except that generated programs run in pkt's sandbox, all in one go. `Mmlu` and
`MbppInstruct` say what else differs from lm-eval.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar
from unittest import mock

from pkt.config import BenchmarkConfig
from pkt.data.lengths import Fitting
from pkt.data.pools import FRONT, SHARE, distinct, divided, same
from pkt.data.rows import SCHEMA
from pkt.data.upstream import Doc, Upstream, read, required
from pkt.errors import PktError
from pkt.evaluation.parts import Graded, Logged, Part, Rows, Sample
from pkt.evaluation.quiet import quiet
from pkt.tasks.base import Given, Row, RowTask, Written, handed, repeated
from pkt.tasks.grading import Program
from pkt.tasks.lm_eval_index import root

NEW_TOKENS = 512
UPSTREAM_KEYS = ("training_split", "validation_split", "fewshot_split", "fewshot_config")
SOURCES = ("dataset_path", "dataset_name", "dataset_kwargs")


@dataclass(frozen=True, kw_only=True)
class Suite(RowTask):
    """A real benchmark; a subclass names its published set, and says how a row becomes prompt and answer.

    Attributes:
        upstream: the published set.
        stock: lm-eval's task: its folder among lm-eval's tasks, and its name.
        train: upstream splits that are trained on together; the first is required.
        own: split -> upstream split that supplies it if the set has one; other splits are cut from the train side.
    """

    upstream: ClassVar[Upstream]
    stock: ClassVar[tuple[str, str]]
    train: ClassVar[tuple[str, ...]] = ("train",)
    own: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def columns(self) -> tuple[str, ...]:
        """Scoring reads the upstream row alone."""
        return ("id", "doc")

    @property
    def written(self) -> Written:
        """See `RowTask`: the stop strings are lm-eval's, whose file is read for them; any row will do."""
        if not any(one.generates for one in self.gradings):
            return super().written
        known = self.upstream
        doc: Doc = {name: ["1"] * 3 if name in known.lists else "1" for name in (*known.columns, *known.more)}
        task = stock_task(*self.stock, _given_rows([doc | {"id": ""}], graded=True))
        return Written(until=tuple(task.config.generation_kwargs["until"]), most=NEW_TOKENS)

    def prompt(self, doc: Doc) -> str:
        """Return lm-eval's zero-shot prompt of a row."""
        raise NotImplementedError

    def answer(self, doc: Doc) -> str:
        """Return the text that the prompt should be continued by."""
        raise NotImplementedError

    def question(self, doc: Doc) -> str:
        """Return the text by which two rows count as the same."""
        return self.prompt(doc)

    def rows(self, split: str, given: Given) -> list[Row]:
        """See `Task`: all test rows, at most `data.sizes` rows of a split cut from a pool, and the rest for ``train``.

        Raises:
            PktError: the set cannot be read, or has too few rows.
        """
        if split == "test":
            docs = self.test_docs(given.benchmark)
            return [_carried({**row, "split": split}) for row in self._read_as_rows(docs, "test")]
        pools, uses = self._pools(given.benchmark, given.fitting)
        name = uses[split]
        front = [part for part in FRONT if uses[part] == name]
        trains, seed = uses["train"] == name, given.data.shuffle_seed or 0
        rows = divided(pools[name], front, given.data.sizes, trains=trains, seed=seed).get(split, [])
        if not rows:
            raise PktError(self._too_few(split, name, len(pools[name]), given.fitting))
        if split == "validation":  # may be scored
            return [_carried(row) for row in rows]
        return [{key: row[key] for key in SCHEMA} for row in rows]

    def train_set(self, benchmark: BenchmarkConfig) -> str | None:
        """Return the id on the hub of the set that train rows are drawn from; None where there is none."""
        return self.upstream.hub

    def test_docs(self, benchmark: BenchmarkConfig) -> list[Doc]:
        """Return the upstream rows that are scored."""
        return required(self.upstream, "test", benchmark.data_dir)

    def train_side(self, benchmark: BenchmarkConfig) -> list[Row]:
        """Return the rows that a transfer may see, each with id, prompt, answer and question."""
        first, *more = self.train
        rows = self._read_as_rows(required(self.upstream, first, benchmark.data_dir), first)
        return rows + [row for name in more for row in self._supplied(name, benchmark)]

    def _too_few(self, split: str, pool: str, size: int, fitting: Fitting | None) -> str:
        longer, total = fitting.dropped.get(f"{self.name}/{pool}", (0, 0)) if fitting else (0, 0)
        message = f"{self.upstream.title}: {size} rows are too few for a {split} split"
        if longer:
            message += (
                f" ({longer} of {total} have more tokens than the models' contexts or data.max_length allow)"
            )
        return f"{message}; {SHARE} or more are needed."

    def _pools(
        self, benchmark: BenchmarkConfig, fitting: Fitting | None
    ) -> tuple[dict[str, list[Row]], dict[str, str]]:
        """Return the pools of rows that fit, and which pool each split is taken from."""
        held = self.held(benchmark)
        tested = frozenset(held)

        def fit(pool: str, rows: list[Row]) -> list[Row]:
            kept = distinct(rows, held)
            if fitting is None:
                return kept
            fitting.apart(f"{self.name}/{pool}", rows, tested)
            return fitting.kept(f"{self.name}/{pool}", kept)

        pools = {"train": fit("train", self.train_side(benchmark))}
        uses = dict.fromkeys((*FRONT, "train"), "train")
        for split, name in self.own.items():
            if name not in pools:
                pools[name] = fit(name, self._supplied(name, benchmark))
            if pools[name]:
                uses[split] = name
        return pools, uses

    def _supplied(self, upstream_split: str, benchmark: BenchmarkConfig) -> list[Row]:
        docs = read(self.upstream, upstream_split, benchmark.data_dir) or []
        return self._read_as_rows(docs, upstream_split)

    def _read_as_rows(self, docs: list[Doc], upstream_split: str) -> list[Row]:
        return [self._row(doc, f"{self.name}/{upstream_split}/{number}") for number, doc in enumerate(docs)]

    def _row(self, doc: Doc, row_id: str) -> Row:
        try:
            return {
                "id": row_id,
                "prompt": self.prompt(doc),
                "answer": self.answer(doc),
                "question": self.question(doc),
                "doc": doc,
            }
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PktError(
                f"row {row_id} (counted from 0) is not as {self.upstream.title}'s rows are: "
                f"{type(error).__name__} {error}. Mend the file that benchmark.data_dir points at."
            ) from error

    def held(self, benchmark: BenchmarkConfig) -> set[str]:
        """Return the questions that are scored, which no pool may hold; none where there is no test split."""
        docs = read(self.upstream, "test", benchmark.data_dir) or []
        return {same(self.question(doc)) for doc in docs}

    def parts(self, rows: Rows, *, limit: int | None = None, samples: int = 1) -> list[Part]:
        """See `Scorable`: lm-eval's task, with these rows."""
        return [self.part(*self.stock, repeated(upstream_docs(rows)[:limit], samples))]

    def part(self, folder: str, name: str, docs: Sequence[Doc]) -> Part:
        """Return one of lm-eval's tasks with these rows and the protocol."""
        (grading,) = self.gradings
        task = stock_task(folder, name, _given_rows(docs, graded=isinstance(grading, Program)))
        self.adapt(task)
        return Part(name=name, config=task, ids=tuple(doc["id"] for doc in docs))

    def grade(self, parts: Sequence[Part], logged: Logged) -> Graded:
        """See `Scorable`: all parts together."""
        (grading,) = self.gradings
        records = grading.grade([answer for part in parts for answer in logged.of(part)], logged)
        return Graded(scores=grading.scores(self.name, records), samples={self.name: records})

    def adapt(self, task: Any) -> None:
        """Change what lm-eval's task asks, through its own interface."""
        task.set_config("generation_kwargs", {"max_gen_toks": NEW_TOKENS}, update=True)


@dataclass(frozen=True, kw_only=True)
class Filtered(Program):
    """Run the program that lm-eval's filters make of an answer: the prompt put before it, code taken out of a fence."""

    until: tuple[str, ...] = ()
    new_tokens: int = NEW_TOKENS

    def candidate(self, sample: Sample) -> str:
        """See `Program`."""
        found = sample["filtered_resps"][0]
        return str(found if isinstance(found, str) else found[0])

    def test(self, sample: Sample) -> str:
        """See `Program`."""
        return str(sample["target"])

    def target(self, sample: Sample) -> str:
        """See `Program`: the tests, because there is no single right answer."""
        return str(sample["target"])


def stock_task(folder: str, name: str, overrides: Mapping[str, Any]) -> Any:
    """Return one of lm-eval's tasks as its file describes it, with some keys replaced.

    A group of one member is how lm-eval's public interface replaces keys before the task fetches its data.
    """
    with quiet(), without_code_eval():
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_defaults=False, include_path=str(root() / folder))
        group = {"group": "pkt", "task": [{"task": name, **overrides}]}
        return manager.load(group)["tasks"][name]


@contextlib.contextmanager
def without_code_eval() -> Iterator[None]:
    """Let ``evaluate.load("code_eval")`` return a metric that runs nothing.

    lm-eval's code tasks load and try this metric when their files are read. The hub's script runs generated code
    unconfined; pkt runs it in its sandbox instead.
    """
    import evaluate

    load, unused = evaluate.load, mock.Mock(compute=lambda **_: None)
    with mock.patch.object(
        evaluate, "load", lambda path, *a, **k: unused if path == "code_eval" else load(path, *a, **k)
    ):
        yield


def upstream_docs(rows: Rows) -> list[Doc]:
    """Return the upstream rows that some rows carry, with their ids."""
    return [{**json.loads(row["doc"]), "id": row["id"]} for row in rows]


def _given_rows(docs: Sequence[Doc], *, graded: bool) -> dict[str, Any]:
    """Return what replaces a task file's data and few-shot examples, and with `graded` its metrics too."""
    found = dict.fromkeys((*UPSTREAM_KEYS, *SOURCES)) | handed(docs) | {"unsafe_code": False}
    del found["target_delimiter"]
    if not graded:
        del found["process_results"], found["metric_list"]
    return found


def _carried(row: Row) -> Row:
    """Return a row with its upstream row as JSON text, so that rows of different sets fit into one table."""
    doc = {"doc": json.dumps(row["doc"], sort_keys=True, ensure_ascii=False)} if "doc" in row else {}
    return {key: row[key] for key in SCHEMA} | doc
