"""What a method is, and the plain data that it hands from stage to stage.

    extract -> Extraction (what to take) -> align -> Alignment (how it reads in the student's space)
                                         -> transfer -> Transferred (the student, changed)

A method is one file here and one file in conf/method/. It declares the stages that it has, with the type of each
stage's result; the pipeline stores the results under keys made of what the method names as settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from pkt import saving
from pkt.mapping import LayerPair
from pkt.mapping import Mapping as LayerMapping
from pkt.methods.workbench import Workbench
from pkt.objectives import Objective, States
from pkt.semantics import Semantics
from pkt.table import Table
from pkt.training.loop import History
from pkt.training.trainable import Trainable


class StageResult:
    """What a stage of a method leaves in its artifact: a dataclass that `pkt.saving` can write.

    Attributes:
        file: name of its JSON file.
    """

    file: ClassVar[str]

    def save(self, folder: Path) -> None:
        """Write everything into a folder."""
        saving.save(self, folder / self.file)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return saving.load(cls, folder / cls.file)

    def tables(self) -> list[Table]:
        """Return what `pkt extract` or `pkt align` prints and the tracker keeps."""
        raise NotImplementedError

    def warnings(self) -> list[str]:
        """Return what a reader of the results should know."""
        return []


class Extraction(StageResult):
    """What to take from the teacher.

    Attributes:
        pairs: teacher layers per student layer, for the pairing figure and the card.
        scores: one per teacher layer, for the attribution figure; None: not needed.
    """

    file: ClassVar[str] = "extraction.json"

    pairs: tuple[LayerPair, ...]
    scores: tuple[float, ...] | None


class Alignment(StageResult):
    """How what was taken reads in the student's space."""

    file: ClassVar[str] = "alignment.json"


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """The student after transfer: what trained, how it went, what it cost."""

    trainable: Trainable
    history: History
    layers: tuple[int, ...]
    budget: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Provides:
    """What the terms of an objective may ask of a method that trains; rows and labels they have everywhere.

    Attributes:
        states: whose space targets are in: the ``student``'s, mapped, or the ``teacher``'s own, which the student's
            states are projected to; None: no states.
        interface: where in a layer they are read.
        outputs: whether the teacher's next-token distributions are there.
        trains_head: whether the student's head changes.
        asks: what the method itself asks of the states, as terms do.
    """

    states: Literal["student", "teacher"] | None = None
    interface: str = "block"
    outputs: bool = False
    trains_head: bool = False
    asks: States = field(default_factory=States)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The strategies that a request puts beside its method."""

    mapping: LayerMapping
    semantics: Semantics
    objective: Objective


def choice_of(bench: Workbench) -> Choice:
    """Return the strategies that a request's workbench was built with."""
    return Choice(mapping=bench.mapping, semantics=bench.semantics, objective=bench.objective)


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What a stage of a method reads, beside the results of the stages before it and the strategies' own settings.

    Attributes:
        rows: splits.
        models: roles.
        config: other nodes and leaves of the request, by their keys (``optim``, ``optim.precision``, ``seed``).
        keeps: whether it keeps what the terms of the objective need of the teacher.
    """

    rows: tuple[str, ...] = ()
    models: tuple[str, ...] = ("teacher", "student")
    config: tuple[str, ...] = ()
    keeps: bool = False


TRAINING = Reads(rows=("train", "validation"), models=("student",), config=("optim", "seed"))


class Method(Protocol):
    """A published method, or one of ours.

    Attributes:
        name: how tables call it.
        results: the stages before `transfer`, each with the type of its result (``extract``, ``align``).
        uses: the strategies that it reads: some of ``mapping``, ``semantics`` and ``objective``; the others of a
            request are ignored.
        demands: what both models have to be like, checked before any work; empty: anything that loads.
    """

    name: str
    results: ClassVar[Mapping[str, type[Any]]]
    uses: ClassVar[tuple[str, ...]]
    demands: ClassVar[str]

    @property
    def provides(self) -> Provides:
        """What terms may ask for; `pkt.methods.combinations.refusal` compares it with what they need."""
        ...

    def refusal(self, choice: Choice) -> str | None:
        """Return why these strategies are not this method, whatever it provides; None where they are."""
        ...

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what a stage reads; its settings say themselves which stage they decide (`pkt.settings`)."""
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
    """A method that takes nothing from a teacher: it has no stages before `transfer`, and provides nothing of one."""

    results: ClassVar[Mapping[str, type[Any]]] = {}

    @property
    def provides(self) -> Provides:
        """Nothing of a teacher."""
        return Provides()

    def refusal(self, choice: Choice) -> str | None:
        """Return nothing: what its terms need decides."""
        return None

    def extract(self, bench: Workbench, scratch: Path | None) -> Any:
        """Never called: `results` names no such stage."""
        raise AssertionError("this method has no extract stage")

    def align(self, bench: Workbench, extraction: Any, scratch: Path | None) -> Any:
        """Never called: `results` names no such stage."""
        raise AssertionError("this method has no align stage")


def described(strategy: Any) -> dict[str, Any]:
    """Name a strategy and its settings, and those of strategies inside it, for keys and for the card."""
    values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    inner = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    named = {name: {key: described(item) for key, item in value.items()} for name, value in inner.items()}
    return {"strategy": type(strategy).__name__, **values, **named}
