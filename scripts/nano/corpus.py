"""Pre-training text: the world's facts, talk and notes, and the tasks themselves on the train side only."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from nano import facts
from nano.prose import PROSE
from nano.rows import DRAFTERS
from pkt.tasks.nano.drafts import side

_SOURCES = ("nano_knowledge", "nano_math", "nano_code", "nano_program", "facts", "sums", "prose", "drills")
# share of documents, by kind of corpus; what is not a task is text about the world or talk
MIXTURES: dict[str, dict[str, float]] = {
    "teacher": dict(zip(_SOURCES, (28, 28, 12, 14, 8, 7, 3, 0), strict=True)),
    "student": dict(zip(_SOURCES, (14, 44, 5, 16, 10, 8, 3, 0), strict=True)),
    "code": dict(zip(_SOURCES, (1, 1, 34, 42, 1, 2, 1, 18), strict=True)),
}
KINDS = tuple(MIXTURES)


def task_text(task: str, rng: Random) -> str:
    """Write a solved row of the train side; combinations of the other sides never come up."""
    while True:
        draft = DRAFTERS[task](rng)
        if side(draft.combo) == "train":
            return draft.prompt + draft.answer


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
    return _documents(MIXTURES[kind], Random(f"nano/corpus/{kind}/{seed}"))


def _documents(mixture: dict[str, float], rng: Random) -> Iterator[str]:
    sources, weights = tuple(mixture), tuple(mixture.values())
    while True:
        source = rng.choices(sources, weights)[0]
        if source == "facts":
            yield facts.fact(rng)
        elif source == "sums":
            yield facts.sums(rng)
        elif source == "drills":
            yield facts.drills(rng)
        elif source == "prose":
            yield rng.choice(PROSE)(rng)
        else:
            yield task_text(source, rng)
