"""Prompts without labels: of the train split, of a task or of a file, and how the teacher is asked.

data.unlabelled=train | task | file -> rows without their answers -> but labelled and validation rows -> Prompt

The answers of these rows are dropped where the rows are read: nothing behind that can see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from pkt.config import AnswerConfig
from pkt.data.pools import same
from pkt.data.prompts import TRAIN, from_file, is_file, unlabelled
from pkt.errors import RequestError
from pkt.searchpath import option_files
from pkt.tasks.base import Given, RowTask, Task, Written, drawn, ordered
from pkt.tasks.find import find
from pkt.tasks.grading import Exact, Program
from pkt.tasks.splits import labelled, trained_on

_Rows = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A row without a label.

    Attributes:
        id: the row's.
        task: the task whose row it is; empty: a row of a file, where several tasks are trained on.
        text: the prompt.
        written: how the answer ends.
        test: code that tests it behind prompt and answer; empty: none.
    """

    id: str
    task: str
    text: str
    written: Written
    test: str = ""


def load_prompts(given: Given, answer: AnswerConfig, held: Iterable[str]) -> tuple[list[Prompt], int]:
    """Return the prompts that the teacher is to answer, and how many were left out because they are held.

    Without `data.unlabelled` they are those of the labelled rows, for a method that learns from answers alone.

    Args:
        given: the settings for rows.
        answer: of the stage.
        held: prompts that are labelled, or that choose settings.

    Raises:
        RequestError: no prompts, or answers that `answer.keep=verified` cannot verify.
    """
    known, found, left_out = {same(text) for text in held}, list[Prompt](), 0
    for name, rows in _sources(given):
        task = find(name, given.benchmark.task_path) if name else None
        free: _Rows = []
        for row in rows:
            if (text := same(row["prompt"])) in known:
                left_out += 1
            else:
                known.add(text)
                free.append(row)
        written = task.written if isinstance(task, RowTask) else Written()
        written = replace(written, most=answer.max_new_tokens or written.most)
        chosen = [_prompt(row, name, written) for row in free[: given.data.sizes.unlabelled]]
        if answer.keep == "verified":
            _check_verified(chosen, task, answer)
        found += chosen
    if not found:
        raise RequestError(_none_left(given))
    return found, left_out


def _sources(given: Given) -> Iterator[tuple[str, _Rows]]:
    """Yield the name of a task, and its rows without answers."""
    source, benchmark = given.data.unlabelled, given.benchmark
    if source is None or source == TRAIN:
        for name in dict.fromkeys(trained_on(benchmark)):
            task = find(name, benchmark.task_path)
            start = 0 if source is None else given.data.sizes.labelled
            rows = labelled(task, TRAIN, given) if source is None else drawn(task, TRAIN, given)
            yield name, [unlabelled(row) for row in rows[start:]]
    elif is_file(source, option_files("task", [source])):
        names = list(dict.fromkeys(trained_on(benchmark)))
        yield names[0] if len(names) == 1 else "", from_file(source, given.data.columns)
    else:
        try:
            task = find(source, benchmark.task_path)
        except RequestError as error:
            raise RequestError(f"data.unlabelled={source} is neither train nor a file: {error}") from error
        yield source, [unlabelled(row) for row in ordered(task, TRAIN, given)]


def _prompt(row: dict[str, str], task: str, written: Written) -> Prompt:
    test = row.get("test", "")
    if "def check(" in test and "entry_point" in row:  # as HumanEval's rows have it
        test += f"\ncheck({row['entry_point']})\n"
    return Prompt(id=row["id"], task=task, text=row["prompt"], written=written, test=test)


def claims(task: str, task_path: str | None) -> Callable[[str], str | None]:
    """Return what says what an answer to a task's prompt claims, so that answers can agree (see `Grading.claim`)."""
    found = find(task, task_path) if task else None
    return found.claim if isinstance(found, RowTask) else Exact(until=(), new_tokens=1).claim


def _check_verified(prompts: Iterable[Prompt], task: Task | None, answer: AnswerConfig) -> None:
    """Refuse prompts whose answers can be verified neither by a test nor by their agreement."""
    bare = [prompt for prompt in prompts if not prompt.test.strip()]
    if not bare:
        return
    name, gradings = task.name if task else "data.unlabelled", getattr(task, "gradings", ())
    first = f"{name}: row {bare[0].id!r}"
    if any(isinstance(one, Program) for one in gradings):
        raise RequestError(
            f"answer.keep=verified runs programs against the row's own asserts, and {first} has no 'test': give a file "
            "with that column (data.unlabelled=<file>), or set answer.keep=all or confident."
        )
    if isinstance(task, RowTask) and task.claim("x") is None and task.claim("1") is None:
        raise RequestError(
            f"answer.keep=verified: answers to {first} are free text, which neither a test nor agreement can verify: "
            "set answer.keep=all or confident."
        )
    if answer.samples == 1:
        raise RequestError(
            f"answer.keep=verified keeps answers to {first} that several samples agree on, and answer.samples=1: set "
            "answer.samples=8 answer.temperature=0.7, say."
        )


def _none_left(given: Given) -> str:
    source, sizes = given.data.unlabelled, given.data.sizes
    if source == TRAIN:
        return (
            f"data.unlabelled=train: no train rows are left beyond the labelled ones (data.sizes.train={sizes.train}, "
            f"data.sizes.labelled={sizes.labelled}): lower data.sizes.labelled, or raise data.sizes.train."
        )
    return (
        f"data.unlabelled={source}: every prompt there is a labelled or validation row too; name other prompts, or "
        "lower data.sizes.labelled."
    )
