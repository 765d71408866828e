"""What `pkt analyze` looks at (models by role, and rows), and what its parts have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pkt.analysis.rows import first_per_task
from pkt.config import MODELS, AnalyzeConfig
from pkt.data.batching import position_counts
from pkt.data.encoding import Encoded
from pkt.errors import RequestError
from pkt.methods.readings import meeting, read_by, teacher_digest
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.pair import LanguageModel
from pkt.semantics import Semantics
from pkt.stages import evaluate as evaluate_stage
from pkt.store import Artifact
from pkt.tasks.splits import trained_on

UNTOUCHED = MODELS[:2]  # teacher and student


@dataclass(kw_only=True)
class Subject:
    """What is analysed: models by role, and rows; loaded when first asked for.

    Attributes:
        bench: models, rows and strategies.
        results: what the stages before have left, by the step's name.
        maps: the alignment maps to measure, by name.
    """

    bench: Workbench
    results: Mapping[str, Artifact]
    maps: Mapping[str, Semantics]
    _transferred: LanguageModel | None = field(default=None, init=False)

    @property
    def config(self) -> AnalyzeConfig:
        """The request's `analyze` node."""
        return self.bench.config.analyze

    def roles(self, readable: tuple[str, ...]) -> list[str]:
        """Return the models that a part reads, in the order teacher, student, transferred."""
        return [role for role in readable if role in self.config.models]

    @property
    def parts(self) -> list[str]:
        """The parts asked for, each once."""
        return list(dict.fromkeys(self.config.parts))

    def arch(self, role: str) -> Architecture:
        """Load a model."""
        if role != "transferred":
            return evaluate_stage.model_of(self.bench, self.results, role).arch
        if self._transferred is None:
            self._transferred = evaluate_stage.model_of(self.bench, self.results, role)
            self._check_tokenizer(self._transferred)
        return self._transferred.arch

    def _check_tokenizer(self, transferred: LanguageModel) -> None:
        if transferred.tokenizer.get_vocab() != self.bench.student.tokenizer.get_vocab():
            raise RequestError(
                f"eval.checkpoint={self.bench.config.eval.checkpoint}: its tokenizer is not the student's, "
                "and layers are compared at the same tokens; name a checkpoint of this student."
            )

    def check_vocabularies(self) -> None:
        """Warn (once) of models that do not read the same tokens."""
        if "teacher" in self.config.models:
            self.bench.note(*self.bench.pair_report.warnings)

    @cached_property
    def chosen(self) -> list[int]:
        """The rows of the split that are looked at."""
        ids = self.bench.splits[self.config.split]["id"]
        return first_per_task(ids, trained_on(self.bench.config.benchmark), self.config.rows)

    def encoded(self, role: str) -> Encoded:
        """Return those rows as a model reads them; without the teacher nobody reads other tokens than the student's."""
        bench, split = self.bench, self.config.split
        if "teacher" not in self.config.models:
            return bench.labelled(split).select(self.chosen)
        return read_by(bench, role, split, labelled=True).select(self.chosen)

    def digests(self, *, align: bool) -> dict[str, Any]:
        """Return the identity of the rows that a part reads, by what they are to it.

        Args:
            align: whether the align rows are read too.
        """
        bench, split = self.bench, self.config.split
        found: dict[str, Any] = {"read": bench.digest(split, self.chosen)} | (
            {"align": bench.digest("align")} if align else {}
        )
        if "teacher" in self.config.models and not bench.one_vocabulary:
            found["read by the teacher"] = teacher_digest(bench, split, self.chosen)
            found["meeting"] = meeting(bench)
            found |= {"align, by the teacher": teacher_digest(bench, "align")} if align else {}
        return found

    def passes(self) -> dict[str, Any]:
        """Return the settings that every pass over the rows takes."""
        return {"positions": self.config.positions, "batch_size": self.bench.config.optim.batch_size}

    def positions(self) -> int:
        """Return how many positions the rows have."""
        return sum(position_counts(self.encoded("student"), self.config.positions))

    @contextmanager
    def released(self) -> Iterator[None]:
        """Free all models at the end."""
        try:
            yield
        finally:
            self._transferred = None
            self.bench.release("teacher", "student")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of `pkt analyze`.

    Attributes:
        compute: returns the numbers, as plain data.
        roles: the models that it reads, of those asked for.
        needs: one of these models has to be asked for; any of `roles` where this is empty.
        settings: leaves of the node ``analyze`` that it reads.
        maps: whether it fits maps between both models, on the align rows and the method's pairs of layers.
        drawn: whether a control in it is drawn by the request's seed.
    """

    compute: Callable[[Subject], dict[str, Any]]
    roles: tuple[str, ...]
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ("interface", "positions")
    maps: bool = False
    drawn: bool = False

    def check(self, name: str, asked: AnalyzeConfig) -> None:
        """Refuse a request that leaves out the models that the part reads, or whose rows are those that maps fit.

        Args:
            name: of the part.
            asked: the request's `analyze` node.

        Raises:
            RequestError: a model is left out, or the split is ``align``.
        """
        needs = self.needs or self.roles
        missing = [role for role in needs if role not in asked.models]
        if (self.maps and missing) or len(missing) == len(needs):
            raise RequestError(
                f"analyze.models={list(asked.models)}: the part {name} reads "
                f"{(' and ' if self.maps else ' or ').join(needs)}; name {'them' if self.maps else 'one of them'}, or "
                f"leave {name} out: `pkt analyze <other parts>`."
            )
        if self.maps and asked.split == "align":
            raise RequestError(
                f"analyze.split=align: the part {name} fits on the align rows and measures on others, so that no map "
                f"flatters itself; choose analyze.split=validation, or leave {name} out: `pkt analyze <other parts>`."
            )


def heading(subject: Subject) -> dict[str, Any]:
    """Return on which rows, and where in a layer, a part's numbers were measured."""
    return {
        "interface": subject.config.interface,
        "positions": subject.config.positions,
        "split": subject.config.split,
        "rows": len(subject.chosen),
        "tokens": subject.positions(),
    }
