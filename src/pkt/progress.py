"""How far work is: a bar on a terminal, a line now and then elsewhere, and what training measures beside it.

    with progress("transfer", steps) as advance: advance(1, shown={"loss": ..., "tokens": ...})

A bar: step, time left, tokens per second, loss and terms, the last validation. Where stderr is no terminal (a cluster's
log), the same as a line every `EVERY` seconds, and at a validation that is `SOON` seconds after the line before. Work
that is done sooner prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from pkt import console

EVERY, SOON = 30.0, 10.0  # seconds
VALIDATION = "validation/"  # what metrics of a validation begin with
TOKENS = "tokens"  # seen so far, by which their rate is known
_DECIDES = ("cross_entropy", "label_accuracy")  # of a validation, where its rows have labels
_LEFT_OUT = ("lr", "grad_norm", "loss", "frontier", TOKENS)


class Advance(Protocol):
    """Counts some steps as done."""

    def __call__(self, steps: int, /, *, shown: Mapping[str, float] | None = None) -> None:
        """Count steps, and say what was measured in them."""
        ...


Track = Callable[[str, int], AbstractContextManager[Advance]]
"""``with track("what", total) as advance:`` shows progress; ``advance(n)`` moves it."""


@contextmanager
def untracked(_what: str, _total: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _steps, /, *, shown=None: None


@dataclass(kw_only=True)
class Measured:
    """What is known of some work while it is done.

    Attributes:
        total: how many steps there are.
        clock: seconds, from anywhere.
        done: steps so far.
        last: what was measured last, by name.
    """

    total: int
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    last: dict[str, float] = field(default_factory=dict)
    _begun: float = field(init=False)
    _first: tuple[float, float] | None = field(default=None, init=False)  # when, and at how many tokens

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def add(self, steps: int, shown: Mapping[str, float] | None) -> None:
        """Take note of steps."""
        self.done += steps
        self.last |= shown or {}
        if self._first is None and TOKENS in self.last:
            self._first = self.clock(), self.last[TOKENS]

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it is done, at the pace so far."""
        spent = self.clock() - self._begun
        return spent / self.done * (self.total - self.done) if self.done and spent > 0 else None

    @property
    def told(self) -> str:
        """The loss, its terms, the rate of tokens and the last validation."""
        parts = [f"loss {self.last['loss']:.4g}"] if "loss" in self.last else []
        terms = [
            name
            for name in self.last
            if name not in _LEFT_OUT and not name.startswith((VALIDATION, "weight_"))
        ]
        parts += [f"{name.removeprefix('loss_')} {self.last[name]:.3g}" for name in terms[:4]]
        if self._first is not None and (spent := self.clock() - self._first[0]) > 0:
            parts.append(f"{(self.last[TOKENS] - self._first[1]) / spent:,.0f} tokens/s")
        checked = {n.removeprefix(VALIDATION): v for n, v in self.last.items() if n.startswith(VALIDATION)}
        first = [name for name in _DECIDES if name in checked] or [*checked][:2]
        parts += (
            [f"validation: {', '.join(f'{name} {checked[name]:.4g}' for name in first)}"] if first else []
        )
        return ", ".join(parts)


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """Show on stderr how far some work is while the block runs.

    Args:
        description: what is being counted.
        total: how many steps there are.

    Yields:
        A function that counts some steps as done.
    """
    measured = Measured(total=total)
    if console.on_terminal():
        with _bar(description, measured) as advance:
            yield advance
    else:
        yield _lines(description, measured)


@contextmanager
def _bar(description: str, measured: Measured) -> Iterator[Advance]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(escape(description), total=measured.total, told="")

        def advance(steps: int, /, *, shown: Mapping[str, float] | None = None) -> None:
            measured.add(steps, shown)
            bars.update(task, advance=steps, told=measured.told)

        yield advance


def _lines(description: str, measured: Measured) -> Advance:
    """Return what prints a line now and then."""
    told_at = measured.clock()

    def advance(steps: int, /, *, shown: Mapping[str, float] | None = None) -> None:
        nonlocal told_at
        measured.add(steps, shown)
        validated = any(name.startswith(VALIDATION) for name in shown or ())
        if measured.clock() - told_at < (SOON if validated else EVERY):
            return
        told_at = measured.clock()
        left = measured.seconds_left
        parts = [f"{description}: {measured.done:,} of {measured.total:,}", measured.told]
        parts += [f"{_clock(left)} left"] if left is not None and measured.done < measured.total else []
        console.note(", ".join(part for part in parts if part))

    return advance


def _clock(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
