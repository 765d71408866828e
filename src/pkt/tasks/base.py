"""What a task is: its rows, how they are put to a model, how answers are graded, and the version of all that.

    conf/task/<name>.yaml -> Task -> rows(split) -> training
                                  -> scored(split) -> parts -> lm-eval -> grade -> scores

`RowTask` makes a task of rows with prompt and answer, and of one or more of the blocks in `grading`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Protocol, runtime_checkable

from pkt.config import BenchmarkConfig, DataConfig
from pkt.data.lengths import Fitting
from pkt.data.rows import fingerprint, validate
from pkt.errors import RequestError
from pkt.evaluation.decoding import NEUTRAL
from pkt.evaluation.parts import Graded, Logged, Part, Record, Rows, Scorable
from pkt.evaluation.results import TaskScore
from pkt.evaluation.sampling import Sampling
from pkt.settings import deciding, undecisive
from pkt.tasks.grading import Generated, Grading

RECORDS = 2  # raised when what records of several gradings hold together becomes something else; part of keys of scores

Row = dict[str, Any]
BYPASS = {"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}


@dataclass(frozen=True, kw_only=True)
class Given:
    """The settings of a request from which tasks make rows.

    Attributes:
        benchmark: where the data of real benchmarks lies.
        data: sizes, seed, and the files of ``custom``.
        fitting: leaves out rows of published sets that are too long to train on; None keeps all.
        kept: folder for rows that pkt's own tasks have drawn, so that they need not be drawn again; None: nowhere.
        chat: prompts are put into a chat template (`model.chat_template`).
    """

    benchmark: BenchmarkConfig = field(default_factory=lambda: BenchmarkConfig(name="", tasks=[]))
    data: DataConfig = field(default_factory=DataConfig)
    fitting: Fitting | None = None
    kept: Path | None = None
    chat: bool = False


@dataclass(frozen=True, kw_only=True)
class Written:
    """How an answer that a model writes ends, beside the end of the text.

    Attributes:
        until: stop strings, which are cut off.
        most: the largest number of new tokens.
    """

    until: tuple[str, ...] = ()
    most: int = 128


@runtime_checkable
class Task(Scorable, Protocol):
    """One benchmark; its `version` is raised whenever a verdict, a prompt or a stop string changes."""

    @property
    def version(self) -> int:
        """The number that scores of this task are comparable under."""

    def rows(self, split: str, given: Given) -> list[Row]:
        """Return all rows of a split in the task's own order, each with id, split, prompt and answer.

        Args:
            split: one of `pkt.config.SPLITS`, or ``test``.
            given: the request's settings for rows.

        Raises:
            PktError: the rows cannot be read, with the reason.
        """

    def scored(self, split: str, given: Given) -> Rows:
        """Return the rows of ``test`` or ``validation`` to score; none where lm-eval reads them itself.

        Raises:
            PktError: the rows cannot be read, or cannot be scored.
        """

    def identity(self, rows: Rows) -> dict[str, Any]:
        """Return the part of the scores' key that this task and these rows decide, JSON-like."""


@dataclass(frozen=True, kw_only=True)
class RowTask:
    """A task whose rows pkt reads itself; a subclass sets `version` and `gradings` and writes `rows`.

    Attributes:
        name: the name of its file in ``conf/task``.
        version: see `Task`; a test compares it with recorded verdicts.
        gradings: how answers are graded; the records of the first are the task's samples, with what the others know
            of the rows beside it.

    Raises:
        RequestError: `gradings` is empty, or holds something that is no `Grading`.
    """

    name: str = undecisive()
    version: ClassVar[int]
    gradings: ClassVar[tuple[Grading, ...]] = ()

    def __post_init__(self) -> None:
        if not self.gradings or not all(isinstance(one, Grading) for one in self.gradings):
            raise RequestError(
                f"task {self.name}: {type(self).__name__} does not say how answers are graded, and nothing is scored "
                "by guess; give it gradings=(Exact(...),), or Choice(), Program(...), Likelihood()."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that scoring reads."""
        return tuple(dict.fromkeys(("id", *(column for one in self.gradings for column in one.columns))))

    @property
    def decoding(self) -> str | None:
        """See `Scorable`: the same for all models."""
        return NEUTRAL if any(one.generates for one in self.gradings) else None

    @property
    def written(self) -> Written:
        """How an answer that a model writes ends; a task that is scored otherwise has no stop strings."""
        own = [one for one in self.gradings if isinstance(one, Generated)]
        return Written(until=own[0].until, most=own[0].new_tokens) if own else Written()

    def claim(self, answer: str) -> str | None:
        """Return what two answers to a row have to share to say the same; None where texts cannot be compared."""
        found = (one.claim(answer) for one in self.gradings)
        return next((claim for claim in found if claim is not None), None)

    def rows(self, split: str, given: Given) -> list[Row]:
        """See `Task`."""
        raise NotImplementedError

    def scored(self, split: str, given: Given) -> list[Row]:
        """See `Task`."""
        rows = self.rows("test", given) if split == "test" else drawn(self, split, given)
        validate(rows, source=f"{self.name}/{split}")
        for row in rows:
            if lacking := [column for column in self.columns if column not in row]:
                raise RequestError(
                    f"eval.split={split}: row {row['id']} of {self.name} has no {', '.join(lacking)}, which scoring "
                    "reads; choose settings on another task, or by the validation loss."
                )
        return rows

    def identity(self, rows: Rows) -> dict[str, Any]:
        """See `Task`: version, settings, and a digest of what scoring reads of the rows, in their order."""
        read = [{column: row.get(column) for column in self.columns} for row in rows]
        settings = deciding(self, "eval", None, path="", first="eval")
        made = {"class": type(self).__qualname__, "version": self.version}
        if self.gradings[1:]:
            made["records"] = RECORDS
        return made | ({"settings": settings} if settings else {}) | {"rows": fingerprint(read)}

    def check(self, sampling: Sampling) -> None:
        """See `Scorable`."""
        if not sampling.greedy and not any(one.generates for one in self.gradings):
            raise RequestError(
                f"{sampling}: {self.name} is scored by log-likelihoods, so no answer is drawn; set eval.samples=1 "
                "eval.temperature=0, or leave the task out (benchmark.tasks=[...])"
            )

    def parts(self, rows: Rows, *, limit: int | None = None, samples: int = 1) -> list[Part]:
        """See `Scorable`: one part per grading; only gradings that generate ask a row several times."""
        docs = [{column: row[column] for column in self.columns} for row in rows[:limit]]
        found = []
        for one in self.gradings:
            name = self.name if len(self.gradings) == 1 else f"{self.name}_{one.kind}"
            asked = repeated(docs, samples if one.generates else 1)
            config = {
                "task": name,
                "doc_to_text": prompt,
                "doc_to_target": answer,
                **one.config(),
                **handed(asked),
            }
            config["metadata"] = {"version": self.version}
            found.append(Part(name=name, config=config, ids=tuple(doc["id"] for doc in asked)))
        return found

    def grade(self, parts: Sequence[Part], logged: Logged) -> Graded:
        """See `Scorable`."""
        scores: list[TaskScore] = []
        samples: list[list[Record]] = []
        for one, part in zip(self.gradings, parts, strict=True):
            samples.append(one.grade(logged.of(part), logged))
            scores += one.scores(self.name, samples[-1])
        return Graded(scores=scores, samples={self.name: _beside(*samples)})


def _beside(first: Sequence[Record], *others: Sequence[Record]) -> list[Record]:
    """Return the records of a grading with what only others know of the same rows (bits beside right or wrong)."""
    found = [dict(one) for one in first]
    for records in others:
        found = [more | one for one, more in zip(found, records, strict=True)]
    return found


def drawn(task: Task | RowTask, split: str, given: Given) -> list[Row]:
    """Return as many rows of a split as `data.sizes` says: the first, or with a seed a draw from all of them."""
    return ordered(task, split, given)[: int(getattr(given.data.sizes, split))]


def ordered(task: Task | RowTask, split: str, given: Given) -> list[Row]:
    """Return all rows of a split, in the task's own order or, with a seed, in a drawn one."""
    rows = task.rows(split, given)
    if given.data.shuffle_seed is not None:
        Random(f"{given.data.shuffle_seed}/{task.name}/{split}").shuffle(rows)
    return rows


def handed(docs: Sequence[Row]) -> dict[str, Any]:
    """Return the keys of a lm-eval config for rows that pkt has read and that it grades itself, all in one go."""
    return {
        "custom_dataset": _dataset(docs),
        "test_split": "test",
        "target_delimiter": "",
        "num_fewshot": 0,
        "process_results": ungraded,
        "metric_list": [BYPASS],
    }


def repeated(docs: Sequence[Row], times: int) -> list[Row]:
    """Return each row as often as it is to be answered."""
    return [doc for doc in docs for _ in range(times)]


def _dataset(docs: Sequence[Row]) -> Callable[..., dict[str, Any]]:
    import datasets

    return lambda **_: {"test": datasets.Dataset.from_list(list(docs))}


def ungraded(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Leave grading to pkt."""
    return {}


def prompt(doc: Mapping[str, Any]) -> str:
    """Return the prompt exactly as training sees it (a template would strip trailing newlines)."""
    return str(doc["prompt"])


def answer(doc: Mapping[str, Any]) -> str:
    """Return the answer with its leading white space."""
    return str(doc["answer"])
