"""What a method is, and the plain data that it hands from stage to stage.

    extract -> Extraction (what to take) -> align -> Alignment (how it reads in the student's space)
                                         -> transfer -> Transferred (the student, changed)

A method is one file here and one file in conf/method/. It declares the stages that it has, with the type of each
stage's result; the pipeline stores the results under keys made of what the method names as settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from pkt.mapping import LayerPair
from pkt.mapping import Mapping as LayerMapping
from pkt.methods.workbench import Workbench
from pkt.objectives import Objective
from pkt.semantics import Semantics
from pkt.table import Table
from pkt.training.loop import History
from pkt.training.trainable import Trainable


class StageResult(Protocol):
    """What a stage of a method leaves in its artifact."""

    def save(self, folder: Path) -> None:
        """Write everything into a folder, as safetensors and JSON."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        ...

    def tables(self) -> list[Table]:
        """Return what `pkt extract` or `pkt align` prints and the tracker keeps."""
        ...

    def warnings(self) -> list[str]:
        """Return what a reader of the results should know."""
        ...


class Extraction(StageResult, Protocol):
    """What to take from the teacher.

    Attributes:
        pairs: teacher layers per student layer, for the pairing figure and the card.
        scores: one per teacher layer, for the attribution figure; None: not needed.
    """

    @property
    def pairs(self) -> tuple[LayerPair, ...]:
        """Teacher layers per student layer."""
        ...

    @property
    def scores(self) -> tuple[float, ...] | None:
        """One score per teacher layer."""
        ...


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """The student after transfer: what trained, how it went, what it cost."""

    trainable: Trainable
    history: History
    layers: tuple[int, ...]
    budget: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The strategies that a request puts beside its method."""

    mapping: LayerMapping
    semantics: Semantics
    objective: Objective


class Method(Protocol):
    """A published method, or one of ours.

    Attributes:
        name: how tables call it.
        results: the stages before `transfer`, each with the type of its result (``extract``, ``align``).
        uses: the strategies that it reads: some of ``mapping``, ``semantics``, ``layer`` and ``output``
            (the terms of the objective); the others of a request are ignored.
        demands: what both models have to be like, checked before any work; empty: anything that loads.
    """

    name: str
    results: ClassVar[Mapping[str, type[Any]]]
    uses: ClassVar[tuple[str, ...]]
    demands: ClassVar[str]

    def refusal(self, choice: Choice) -> str | None:
        """Return why these strategies make no sense with this method; None where they do."""
        ...

    def settings(self, stage: str, bench: Workbench) -> Mapping[str, Any]:
        """Name everything in the request, besides models and rows, that this stage's result depends on."""
        ...

    def extract(self, bench: Workbench, scratch: Path | None) -> Any:
        """Choose what to take from the teacher; `scratch` keeps resumable state."""
        ...

    def align(self, bench: Workbench, extraction: Any, scratch: Path | None) -> Any:
        """Bring it into the student's space (`extraction` is None where the method has no extract stage)."""
        ...

    def transfer(self, bench: Workbench, alignment: Any, scratch: Path | None) -> Transferred:
        """Change the student (`alignment` is None where the method has no align stage)."""
        ...


class WithoutTeacher:
    """The stages of a method that takes nothing from a teacher: there are none before `transfer`."""

    results: ClassVar[Mapping[str, type[Any]]] = {}

    def extract(self, bench: Workbench, scratch: Path | None) -> Any:
        """Never called: `results` names no such stage."""
        raise AssertionError("this method has no extract stage")

    def align(self, bench: Workbench, extraction: Any, scratch: Path | None) -> Any:
        """Never called: `results` names no such stage."""
        raise AssertionError("this method has no align stage")


def described(strategy: Any) -> dict[str, Any]:
    """Name a strategy and its settings, for the key of an artifact and for the card."""
    return {"strategy": type(strategy).__name__, **asdict(strategy)}
