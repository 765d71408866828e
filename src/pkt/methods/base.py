"""What a method is, and the plain data that it hands from stage to stage.

    extract -> Extraction (what to take) -> align -> Alignment (the same in the student's space)
                                         -> transfer -> Transferred (the student, changed)

A method is one file here and one file in conf/method/. It declares the stages that it has, with the type of each
stage's result; `pkt.planner` makes the keys under which the results are stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pkt import saving
from pkt.mapping import LayerPair
from pkt.mapping import Mapping as LayerMapping
from pkt.methods.workbench import Workbench
from pkt.objectives import Objective, States
from pkt.semantics import Semantics
from pkt.settings import Bounded, undecisive
from pkt.table import Table
from pkt.training.loop import History
from pkt.training.trainable import Trainable, Update


class StageResult:
    """The result of a stage of a method: a dataclass that `pkt.saving` can write.

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
        """Return the tables that `pkt extract` or `pkt align` prints and the tracker keeps."""
        raise NotImplementedError

    def warnings(self) -> list[str]:
        """Return what a reader of the results should be warned of."""
        return []


class Extraction(StageResult):
    """What to take from the teacher.

    Attributes:
        pairs: teacher layers per student layer, for the pairing figure and the card.
        scores: one per teacher layer, for the attribution figure; None where no scores were needed.
    """

    file = "extraction.json"

    pairs: tuple[LayerPair, ...]
    scores: tuple[float, ...] | None


class Alignment(StageResult):
    """What was taken from the teacher, brought into the student's space."""

    file = "alignment.json"

    @property
    def kept_bytes(self) -> int:
        """Bytes of what the teacher said of every row, where that is kept."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """The student after transfer.

    Attributes:
        trainable: the student, with what trained in it.
        history: of the training.
        layers: student layers that changed, from 1.
        budget: what it cost, by name.
    """

    trainable: Trainable
    history: History
    layers: tuple[int, ...]
    budget: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Provides:
    """What the terms of an objective may ask of a method that trains, beside the rows and labels that it always has.

    Attributes:
        states: whose space the targets of layer terms are in: the ``student``'s (the teacher's states are mapped)
            or the ``teacher``'s (the student's states are projected); None: the method has no such targets.
        interface: where in a layer states are read.
        outputs: whether the method has the teacher's next-token distributions.
        trains_head: whether it changes the student's head.
        asks: what the method itself needs of the states, declared as terms declare it.
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
        rows: the splits whose rows it reads.
        models: the models, by role.
        config: other nodes and leaves of the request, by their keys (``optim``, ``optim.precision``, ``seed``).
        keeps: whether the stage stores what the terms of the objective need of the teacher.
        update: what trains, in a training.
    """

    rows: tuple[str, ...] = ()
    models: tuple[str, ...] = ("teacher", "student")
    config: tuple[str, ...] = ()
    keeps: bool = False
    update: Update | None = None


TRAINING = Reads(rows=("train", "validation"), models=("student",), config=("optim", "seed"))
"""What a training of the student reads."""


def training(update: Update) -> Reads:
    """Return what a training of some part of the student reads."""
    return replace(TRAINING, update=update)


@dataclass(frozen=True, kw_only=True)
class Method(Bounded, ABC):
    """A published method, or one of ours; as it stands here it takes nothing from a teacher.

    Attributes:
        results: the stages before `transfer` (``extract``, ``align``), each with the type of its result.
        uses: which of ``mapping``, ``semantics`` and ``objective`` it reads; a request's others are ignored.
        demands: what both models have to be like, checked before any work; empty: anything that loads.
        name: what tables call it; it decides no result.
    """

    results: ClassVar[Mapping[str, type[Any]]] = {}
    uses: ClassVar[tuple[str, ...]] = ()
    demands: ClassVar[str] = ""

    name: str = undecisive()

    @property
    def provides(self) -> Provides:
        """What terms may ask for; `pkt.methods.combinations.refusal` compares it with what they need."""
        return Provides()

    @property
    def needs_kept(self) -> str | None:
        """Why the teacher cannot run beside the training (`capture.mode`); None where it can."""
        return None

    def on(self, device_type: str) -> Self:
        """Return the method as it is on a type of device, where some setting of it is left open."""
        return self

    def is_taught(self, unlabelled: bool) -> bool:
        """Return whether the teacher's answers are among its train rows, in stages that read any.

        Args:
            unlabelled: whether the request has prompts without labels (`data.unlabelled`).
        """
        return unlabelled and bool(self.results)

    def refusal(self, choice: Choice) -> str | None:
        """Return why the method makes no sense with these strategies, whatever it provides; None where it does."""
        return None

    @abstractmethod
    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what a stage reads; settings say themselves which stage they decide (`pkt.settings`)."""

    def extract(self, bench: Workbench, scratch: Path | None) -> Any:
        """Choose what to take from the teacher; `scratch` keeps resumable state."""
        raise AssertionError(f"{self.name} has no extract stage")

    def align(self, bench: Workbench, extraction: Any, scratch: Path | None) -> Any:
        """Bring it into the student's space (`extraction` is None where the method has no extract stage)."""
        raise AssertionError(f"{self.name} has no align stage")

    @abstractmethod
    def transfer(self, bench: Workbench, alignment: Any, scratch: Path | None) -> Transferred:
        """Change the student (`alignment` is None where the method has no align stage)."""


def described(strategy: Any) -> dict[str, Any]:
    """Return the name and settings of a strategy, and of strategies inside it, for the card."""
    values = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    inner = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    named = {name: {key: described(item) for key, item in value.items()} for name, value in inner.items()}
    return {"strategy": type(strategy).__name__, **values, **named}
