"""Pre-training text: the world's facts, talk and notes, and solved rows of the tasks."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from nano import facts
from nano.prose import PROSE
from nano.rows import DRAFTERS, rows
from pkt.tasks.nano.drafts import side

_SOURCES = ("nano_knowledge", "nano_math", "nano_code", "nano_program", "facts", "sums", "prose", "drills")
# share of documents, by kind of corpus; what is not a task is text about the world or talk
MIXTURES: dict[str, dict[str, float]] = {
    "teacher": dict(zip(_SOURCES, (18, 22, 18, 18, 12, 6, 1, 5), strict=True)),
    "peer": dict(zip(_SOURCES, (18, 22, 18, 18, 12, 6, 1, 5), strict=True)),
    "student": dict(zip(_SOURCES, (3, 12, 10, 17, 18, 14, 6, 20), strict=True)),
    "code": dict(zip(_SOURCES, (1, 1, 34, 42, 1, 2, 1, 18), strict=True)),
}
KINDS = tuple(MIXTURES)
POOL = 1000
"""Solved rows of each task in the peer's text."""
SEES_ALL = ("teacher", "code")
"""Kinds of corpus that hold every combination; the others hold those of the train side only."""


def corpus(kind: str, seed: int) -> Iterator[str]:
    """Yield documents without end.

    Args:
        kind: One of `KINDS`; who is trained on it decides the mixture.
        seed: Another seed gives other documents from the same mixture.

    Raises:
        ValueError: For an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no corpus {kind!r}; kinds are {KINDS}")
    return _documents(kind, Random(f"nano/corpus/{kind}/{seed}"))


def _documents(kind: str, rng: Random) -> Iterator[str]:
    sources, weights = tuple(MIXTURES[kind]), tuple(MIXTURES[kind].values())
    known = _any if kind in SEES_ALL else _of_the_train_side
    pools = {task: rows(task, "train", count=POOL) for task in DRAFTERS} if kind == "peer" else {}
    while True:
        source = rng.choices(sources, weights)[0]
        if source == "facts":
            yield facts.fact(rng)
        elif source == "sums":
            yield facts.sums(rng, known)
        elif source == "drills":
            yield facts.drills(rng)
        elif source == "prose":
            yield rng.choice(PROSE)(rng)
        elif source in pools:
            row = rng.choice(pools[source])
            yield row["prompt"] + row["answer"]
        else:
            yield task_text(source, rng, known)


def task_text(task: str, rng: Random, known: facts.Known) -> str:
    """Write a solved row of a combination that is known."""
    while True:
        draft = DRAFTERS[task](rng)
        if known(draft.combo):
            return draft.prompt + draft.answer


def _any(_combo: str) -> bool:
    return True


def _of_the_train_side(combo: str) -> bool:
    return side(combo) == "train"
