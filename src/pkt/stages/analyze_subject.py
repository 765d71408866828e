"""What `pkt analyze` looks at, models by role and rows, and what all parts need to know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pkt import console
from pkt.analysis.rows import first_per_task, subset
from pkt.config import AnalyzeConfig
from pkt.data.encoding import Encoded
from pkt.data.rows import fingerprint as rows_fingerprint
from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.pair import LanguageModel
from pkt.semantics import Semantics
from pkt.stages import evaluate as evaluate_stage
from pkt.stages.session import Session
from pkt.store import content_key
from pkt.training.capture import position_counts

UNTOUCHED = ("teacher", "student")
ALL = (*UNTOUCHED, "transferred")


@dataclass(kw_only=True)
class Subject:
    """What is analysed: models by role, and rows; loaded when first asked for.

    Attributes:
        session: the request.
        maps: the alignment maps to measure, by name.
    """

    session: Session
    maps: Mapping[str, Semantics]
    _transferred: LanguageModel | None = field(default=None, init=False)
    _warned: bool = field(default=False, init=False)

    @property
    def config(self) -> AnalyzeConfig:
        """The request's `analyze` node."""
        return self.session.bench.config.analyze

    def roles(self, readable: tuple[str, ...]) -> list[str]:
        """Return the models that a part reads, in the order teacher, student, transferred."""
        return [role for role in readable if role in self.config.models]

    def identity(self, role: str) -> str:
        """Return a model's identity for a key; the transferred student is made first where it is missing."""
        folder = evaluate_stage.transferred_folder(self.session) if role == "transferred" else None
        return evaluate_stage.identity_of(self.session, role, folder)

    def arch(self, role: str) -> Architecture:
        """Load a model."""
        if role != "transferred":
            return evaluate_stage.model_of(self.session, role, None).arch
        if self._transferred is None:
            folder = evaluate_stage.transferred_folder(self.session)
            self._transferred = evaluate_stage.model_of(self.session, role, folder)
            self._check_tokenizer(self._transferred)
        return self._transferred.arch

    def _check_tokenizer(self, transferred: LanguageModel) -> None:
        if transferred.tokenizer.get_vocab() != self.session.bench.student.tokenizer.get_vocab():
            raise RequestError(
                f"eval.checkpoint={self.session.bench.config.eval.checkpoint}: its tokenizer is not the student's, "
                "and layers are compared at the same tokens; name a checkpoint of this student."
            )

    def check_vocabularies(self) -> None:
        """Refuse models that do not read the same tokens, and warn (once) where they nearly do."""
        if "teacher" in self.config.models and not self._warned:
            for note in self.session.bench.pair_report.warnings:
                console.warn(note)
        self._warned = True

    @cached_property
    def chosen(self) -> list[int]:
        """The rows of the split that are looked at."""
        bench = self.session.bench
        ids = bench.splits[self.config.split]["id"]
        return first_per_task(ids, bench.config.benchmark.tasks, self.config.rows)

    @cached_property
    def encoded(self) -> Encoded:
        """Those rows, tokenised."""
        return subset(self.session.bench.encoded(self.config.split), self.chosen)

    def rows_key(self) -> str:
        """Identity of those rows and of how they are tokenised."""
        bench = self.session.bench
        rows = rows_fingerprint(bench.splits[self.config.split].select(self.chosen))
        chat = bench.config.model.chat_template
        return content_key({"rows": rows, "max_length": bench.max_length, "chat_template": chat})

    def passes(self) -> dict[str, Any]:
        """Return the settings that every pass over the rows takes."""
        return {"positions": self.config.positions, "batch_size": self.session.bench.config.optim.batch_size}

    def positions(self) -> int:
        """Return how many positions the rows have."""
        return sum(position_counts(self.encoded, self.config.positions))

    def release(self) -> None:
        """Free all models."""
        self._transferred = None
        self.session.bench.release("teacher", "student")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of `pkt analyze`.

    Attributes:
        check: refuses a request that leaves out what the part needs, before any work.
        inputs: returns everything that the numbers depend on, for the key.
        compute: returns the numbers, as plain data.
    """

    check: Callable[[Subject], None]
    inputs: Callable[[Subject], dict[str, Any]]
    compute: Callable[[Subject], dict[str, Any]]


def inputs_of(subject: Subject, readable: tuple[str, ...]) -> dict[str, Any]:
    """Return the models, the rows and where states are read, for a part's key."""
    return {
        "models": {role: subject.identity(role) for role in subject.roles(readable)},
        "rows": subject.rows_key(),
        "interface": subject.config.interface,
        "positions": subject.config.positions,
    }


def heading(subject: Subject) -> dict[str, Any]:
    """Return on what, and where in a layer, a part's numbers were measured."""
    return {
        "interface": subject.config.interface,
        "positions": subject.config.positions,
        "split": subject.config.split,
        "rows": len(subject.chosen),
        "tokens": subject.positions(),
    }


def require(subject: Subject, part: str, needed: tuple[str, ...], *, every: bool) -> None:
    """Refuse a request that leaves out the models that a part reads.

    Args:
        subject: the request.
        part: its name.
        needed: the models that it reads.
        every: whether it needs all of them, or any.

    Raises:
        RequestError: they are left out.
    """
    missing = [role for role in needed if role not in subject.config.models]
    if (every and missing) or len(missing) == len(needed):
        raise RequestError(
            f"analyze.models={list(subject.config.models)}: the part {part} reads "
            f"{(' and ' if every else ' or ').join(needed)}; name {'them' if every else 'one of them'}, or "
            f"leave {part} out: `pkt analyze <other parts>`."
        )
