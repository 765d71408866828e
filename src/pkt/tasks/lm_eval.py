"""Tasks of lm-eval, from its own collection or from a user's folder, scored as their own files say.

lm-eval decides their rows, prompts, few-shot examples and metrics. pkt keeps those metrics that are a mean over rows,
with each row's value. A task with training documents can be trained on: the prompt is its zero-shot prompt, the answer
its delimiter and target.
"""

from __future__ import annotations

import glob
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pkt.data.pools import FRONT, distinct, divided, same
from pkt.errors import PktError, RequestError, first_line
from pkt.evaluation.decoding import MODEL
from pkt.evaluation.parts import Graded, Logged, Part, Record, Rows, Sample
from pkt.evaluation.quiet import quiet
from pkt.evaluation.results import TaskScore
from pkt.evaluation.sampling import Sampling
from pkt.evaluation.statistics import mean
from pkt.foreign import network_errors
from pkt.tasks.base import Given, Row
from pkt.tasks.grading import score

OF_ALL_ROWS = (
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
    "bleu",
    "chrf",
    "ter",
    "mcc",
)
"""Metrics of lm-eval's that are worked out over all rows together."""


def _of_all_rows(metric: object) -> bool:
    """Return whether an entry of a task file's `metric_list` is worked out over all rows together."""
    if not isinstance(metric, dict):
        return False
    return metric.get("metric") in OF_ALL_ROWS and metric.get("aggregation") != "mean"


def _ungraded(name: str) -> RequestError:
    return RequestError(
        f"task {name}: none of lm-eval's metrics for it is a mean over rows, so pkt does not know how its answers are "
        "graded; leave it out (benchmark.tasks=[...])."
    )


@dataclass(frozen=True, kw_only=True)
class LmEvalTask:
    """A task, group or tag of lm-eval.

    Attributes:
        name: what lm-eval calls it.
        folders: where its file and those of its members lie.
        local: whether these are the user's own files, which the version of lm-eval does not identify.
    """

    name: str
    folders: tuple[str, ...]
    local: bool = False

    @property
    def decoding(self) -> str | None:
        """See `Scorable`: as stock lm-eval has it."""
        return MODEL

    @cached_property
    def _manager(self) -> Any:
        with quiet():
            from lm_eval.tasks import TaskManager

            return TaskManager(include_defaults=False, include_path=list(self.folders))

    @property
    def version(self) -> int:
        """The number in its own file; 0 where it has none, and for groups."""
        metadata = (self._manager.task_index[self.name].cfg or {}).get("metadata")
        number = metadata.get("version") if isinstance(metadata, dict) else None
        return int(number) if isinstance(number, int | float) else 0

    def scored(self, split: str, given: Given) -> list[Row]:
        """See `Task`: none, because lm-eval reads them itself.

        Raises:
            RequestError: for any split but the one that the task's file names.
        """
        if split != "test":
            raise RequestError(
                f"eval.split={split}: {self.name} is lm-eval's, which scores the rows that the task's own file names; "
                "choose settings on another task, or by the validation loss."
            )
        return []

    def identity(self, rows: Rows) -> dict[str, Any]:
        """See `Task`: the version of lm-eval identifies its own files; the user's files are hashed."""
        found: dict[str, Any] = {"lm_eval": version("lm_eval")}
        return found | {"version": self.version, "files": self._digest()} if self.local else found

    def _digest(self) -> str:
        """Return a sha256 over names and contents of the folder's files, and of the data files that they name."""
        digest = hashlib.sha256()
        inside = {path for folder in self.folders for path in Path(folder).rglob("*") if _counts(path)}
        texts = {text for entry in self._manager.task_index.values() for text in _texts(entry.cfg)}
        for path in sorted(inside | {path for text in texts for path in _named(text)}):
            digest.update(f"{path.name}\n".encode())
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def check(self, sampling: Sampling) -> None:
        """See `Scorable`."""
        if sampling.samples > 1:
            raise RequestError(
                f"{sampling}: {self.name} is a task of lm-eval's, whose own file says how often a row is asked "
                "(repeats); set eval.samples=1"
            )
        entry = self._manager.task_index.get(self.name)
        listed = (entry.cfg or {}).get("metric_list") if entry is not None else None
        if listed and all(map(_of_all_rows, listed)):  # what other files say is seen when the rows are scored
            raise _ungraded(self.name)

    def parts(self, rows: Rows, *, limit: int | None = None, samples: int = 1) -> list[Part]:
        """See `Scorable`: one part per task of a group; lm-eval itself applies the limit."""
        return [Part(name=name, config=task) for name, task in self._loaded().items()]

    def _loaded(self) -> dict[str, Any]:
        """Let lm-eval build the tasks, which fetches their data."""
        try:
            found: dict[str, Any] = self._manager.load(self.name)["tasks"]
        except network_errors(ValueError, KeyError, TypeError, ImportError) as error:
            raise PktError(f"lm-eval could not read its task {self.name}: {first_line(error)}") from error
        return found

    def grade(self, parts: Sequence[Part], logged: Logged) -> Graded:
        """See `Scorable`: the scores of lm-eval itself.

        Raises:
            PktError: a task without any metric that is a mean over rows.
        """
        scores: list[TaskScore] = []
        samples: dict[str, list[Record]] = {}
        for part in parts:
            of = logged.samples[part.name]
            values = row_values(of, logged.results.get(part.name, {}))
            if not values:
                raise _ungraded(part.name)
            scores += stock_scores(part.name, values, logged.higher_is_better.get(part.name, {}))
            samples[part.name] = stock_records(of, values)
        return Graded(scores=scores, samples=samples)

    def rows(self, split: str, given: Given) -> list[Row]:
        """See `Task`: the training documents that are not also scored, cut as in `Suite`.

        Raises:
            PktError: no training documents, documents that do not read as prompt and answer, or too few.
        """
        with quiet():
            tasks = self._loaded()
            pool = [row for name, task in tasks.items() for row in _documents(name, task)]
            held = {same(_question(task, doc)) for task in tasks.values() for doc in task.eval_docs}
        if given.fitting is not None:
            given.fitting.apart(f"{self.name}/train", pool, held)
        pool = distinct(pool, held)
        if given.fitting is not None:
            pool = given.fitting.kept(f"{self.name}/train", pool)
        seed = given.data.shuffle_seed or 0
        rows = divided(pool, list(FRONT), given.data.sizes, trains=True, seed=seed).get(split, [])
        if not rows:
            raise PktError(
                f"task {self.name}: {len(pool)} training documents are too few for a {split} split."
            )
        return rows


def of_folder(name: str, folder: str) -> LmEvalTask | None:
    """Return the task of this name in the user's folder, or None.

    Raises:
        RequestError: no such folder.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise RequestError(
            f"benchmark.task_path={folder}: no folder there; name one with lm-eval task files (*.yaml)."
        )
    task = LmEvalTask(name=name, folders=(str(place.resolve()),), local=True)
    return task if name in task._manager.task_index else None


def _counts(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _named(text: str) -> Iterator[Path]:
    """Yield the local files that a text names: a file, all that is in a folder, or what a pattern finds."""
    if not text:
        return
    try:
        found = [Path(text), *Path(text).rglob("*"), *map(Path, glob.glob(text, recursive=True))]  # noqa: PTH207 (absolute patterns)
        yield from (path for path in found if _counts(path))
    except (OSError, ValueError):  # too long, or with characters that no file's name has
        return


def _texts(config: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield every text in a task file's description of its data; some of them name files."""
    waiting: list[Any] = [(config or {}).get("dataset_path"), (config or {}).get("dataset_kwargs")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _documents(name: str, task: Any) -> Iterator[Row]:
    """Yield the training documents of a task as rows."""
    if not task.has_training_docs():
        raise RequestError(
            f"task {name} has no training documents (its file names no training_split), so it can be scored but not "
            "trained on; set benchmark.train=[...] to other tasks."
        )
    for number, doc in enumerate(task.training_docs()):
        asked, target = task.doc_to_text(doc), task.doc_to_target(doc)
        if isinstance(target, list) and target:
            target = target[0]
        if isinstance(target, int) and task.config.doc_to_choice is not None:
            target = task.doc_to_choice(doc)[target]
        if not isinstance(asked, str) or not isinstance(target, str | int | float):
            raise RequestError(
                f"task {name}: training document {number} is no prompt with one answer (prompt "
                f"{type(asked).__name__}, target {type(target).__name__}), so it cannot be trained on; set "
                "benchmark.train=[...] to other tasks."
            )
        row = {"id": f"{name}/train/{number}", "prompt": asked, "question": _question(task, doc)}
        yield row | {"answer": f"{task.config.target_delimiter}{target}"}


def _question(task: Any, doc: Any) -> str:
    """Return the text by which two documents count as the same: prompt and options."""
    options = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
    return "\n".join(map(str, [task.doc_to_text(doc), *options]))


def stock_scores(
    task: str, values: Mapping[str, Mapping[str, float]], higher: Mapping[str, Any]
) -> list[TaskScore]:
    """Return the mean of each metric.

    Args:
        task: its name.
        values: metric -> row -> value.
        higher: metric -> whether higher is better, from lm-eval; it is where lm-eval says nothing.
    """
    means = {name: mean(list(of.values())) for name, of in values.items()}
    better = {name: bool(higher.get(name.partition(",")[0], True)) for name in values}
    return [score(task, name, means[name], len(of), higher=better[name]) for name, of in values.items()]


def stock_records(logged: Sequence[Sample], values: Mapping[str, Mapping[str, float]]) -> list[Record]:
    """Return a record per row, with the row's value of each metric.

    lm-eval logs a row once per filter. The record has the output under the first filter, and the metrics of all,
    named as in the scores (``exact_match``, ``exact_match,strict-match``). A row is ``correct`` where the first metric
    is 1, if that metric is 0 or 1 in every row.

    Args:
        logged: what lm-eval logged of the task.
        values: metric -> row -> value.
    """
    first = next(iter(values.values()), {})
    binary = set(first.values()) <= {0.0, 1.0}
    rows: dict[str, Record] = {}
    for sample in logged:
        row_id = str(sample["doc_id"])
        row = {
            "id": row_id,
            "prompt": str(sample["arguments"][0][0]),
            "output": str(sample["filtered_resps"][0]),
            "target": str(sample["target"]),
            "correct": bool(first[row_id]) if binary and row_id in first else None,
            "filter": sample["filter"],
            "metrics": {name: of[row_id] for name, of in values.items() if row_id in of},
        }
        rows.setdefault(row_id, row)
    return list(rows.values())


def row_values(logged: Sequence[Sample], results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return metric -> row -> value, for the metrics whose score in lm-eval's results is the mean over rows."""
    found: dict[str, dict[str, float]] = {}
    for sample in logged:
        for metric in sample["metrics"]:
            if isinstance(sample[metric], int | float):  # others are worked out over all rows together
                rows = found.setdefault(f"{metric},{sample['filter']}", {})
                rows[str(sample["doc_id"])] = float(sample[metric])
    means = {name: rows for name, rows in found.items() if _is_mean(rows, results.get(name))}
    return {name.removesuffix(",none"): rows for name, rows in means.items()}


def _is_mean(rows: Mapping[str, float], score: object) -> bool:
    own = math.fsum(rows.values()) / len(rows)
    return isinstance(score, int | float) and math.isclose(own, score, rel_tol=1e-6, abs_tol=1e-9)
