"""What a request asks for, as far as it decides costs: the composed config and its strategies, without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from pkt.build import build
from pkt.config import Config
from pkt.errors import RequestError
from pkt.mapping import LayerPair, of_student
from pkt.mapping import Mapping as Pairing
from pkt.methods.base import Choice, Method
from pkt.methods.seeking import Seeking
from pkt.objectives import Term, needed_states
from pkt.planning.device import on_gpu
from pkt.planning.rows import Batch, Rows
from pkt.planning.shapes import Shape
from pkt.semantics import Semantics

# what a term reads of the teacher's answers: the planner's own formulas are by the names of classes
_READING = ("Divergence", "Uld", "Chunk", "Attended")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the terms read of the teacher's distributions.

    Attributes:
        kept: tokens per position.
        live: whether the teacher runs at every step instead.
        named: whether it is kept which tokens they are.
    """

    kept: int
    live: bool = False
    named: bool = True


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The parts of a request that a plan reads.

    Attributes:
        config: the request, with its method's own learning rate and epochs settled.
        teacher, student: their shapes.
        strategy: the method.
        semantics: the map's strategy.
        pairs: teacher layers per student layer, as they are or as they are assumed to be.
        scores, similarity: what the mapping asks the models for.
        terms: of the objective, each with its settings.
        taught: whether the teacher answers prompts.
    """

    config: Config
    teacher: Shape
    student: Shape
    strategy: Method
    semantics: Semantics
    pairs: tuple[LayerPair, ...] = ()
    scores: bool = False
    similarity: bool = False
    terms: tuple[tuple[Term, Mapping[str, Any]], ...] = ()
    taught: bool = False

    @property
    def own(self) -> Mapping[str, Any]:
        """The method's settings."""
        settings: Mapping[str, Any] = self.config.method
        return settings

    @property
    def method(self) -> str:
        """The name of the method's class."""
        return type(self.strategy).__name__

    @property
    def layerwise(self) -> bool:
        """Whether teacher layers are paired with student layers."""
        return "mapping" in self.strategy.uses

    @property
    def projects(self) -> bool:
        """Whether the student's states are projected into the teacher's space, instead of the other way round."""
        return self.strategy.provides.states == "teacher"

    @property
    def layer_terms(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The terms that compare states: (name of the class, settings); none in a method that has no states."""
        found = [(type(term).__name__, own) for term, own in self.terms if needed_states(term) is not None]
        return found if self.layerwise else []

    @property
    def output_terms(self) -> list[str]:
        """The terms that read the student's final states, by the names of their classes."""
        return [type(term).__name__ for term, _ in self.terms if needed_states(term) is None]

    @property
    def positions(self) -> str:
        """Where targets are kept, and where a map is fitted."""
        return "all" if any(own["positions"] == "all" for _, own in self.layer_terms) else "answer"

    @property
    def outputs(self) -> Output | None:
        """What the terms read of the teacher's distributions; None: nothing."""
        found = {name: own for term, own in self.terms if (name := type(term).__name__) in _READING}
        if not found or not self.strategy.provides.outputs:
            return None
        if own := found.get("Divergence"):
            rows = min(self.teacher.vocabulary, self.student.vocabulary)
            return Output(kept=min(own["top_k"] or rows, rows), live=own["teacher"] == "live")
        if own := found.get("Uld"):
            rows = self.teacher.vocabulary
            return Output(kept=min(own["top_k"] or rows, rows), named=False)
        return Output(kept=1 + 3 * self.teacher.width if "Attended" in found else 1, named=False)

    @property
    def students(self) -> tuple[int, ...]:
        """The paired student layers."""
        return tuple(sorted(pair.student for pair in self.pairs))

    @property
    def trained(self) -> tuple[int, ...]:
        """The student layers that train."""
        if self.layerwise:
            last = {self.student.layers} if self.frontier and self.output_terms else set[int]()
            return tuple(sorted({*self.students, *last}))
        named = self.own.get("layers")  # for Seeking it is the word by which layers are chosen
        return tuple(named) if isinstance(named, list) else self.every

    @property
    def every(self) -> tuple[int, ...]:
        """All student layers."""
        return tuple(range(1, self.student.layers + 1))

    @property
    def frontier(self) -> bool:
        """Whether layers train one after the other."""
        return self.own.get("schedule") == "frontier"

    @property
    def targets(self) -> list[str]:
        """Roles that get adapters."""
        if isinstance(self.strategy, Seeking):
            return self.strategy.targets
        return list(self.own["update"]["targets"])

    @property
    def trains_embeddings(self) -> bool:
        """Whether the states that enter every layer change in training."""
        return bool(self.strategy.update.trains_embeddings)  # type: ignore[attr-defined]

    @property
    def full(self) -> bool:
        """Whether whole layers train."""
        return bool(self.own["update"]["kind"] == "full")

    @property
    def trains_maps(self) -> bool:
        """Whether a map per pair of layers is trained along."""
        return self.layerwise and bool(self.config.semantics.get("trainable"))

    @property
    def shards(self) -> bool:
        """Whether several processes share out the student's layers while it trains."""
        return self.config.plan.shards and self.config.plan.processes > 1

    @property
    def per_layer(self) -> int:
        """Parameters that train in a layer."""
        return (
            self.student.layer
            if self.full
            else self.student.adapter(self.targets, self.own["update"]["rank"])
        )

    @property
    def per_end(self) -> int:
        """Parameters of adapters on the embedding and the head."""
        ends = 0 if self.full else sum(role in ("embed", "head") for role in self.targets)
        return ends * int(self.own["update"]["rank"]) * (self.student.vocabulary + self.student.width)

    @property
    def map(self) -> str:
        """The class of the map."""
        return str(self.config.semantics["_target_"]).rpartition(".")[2]

    @property
    def fitted(self) -> bool:
        """Whether paired states decide the map, one for each pair of layers."""
        return self.semantics.needs_states

    @property
    def learns(self) -> bool:
        """Whether the map changes while the student trains, so that the teacher's own states are kept."""
        own: Mapping[str, Any] = self.config.semantics
        return own.get("refit", "never") != "never" or bool(own.get("trainable"))

    @property
    def refit(self) -> str:
        """When the map is fitted again."""
        return str(self.config.semantics.get("refit", "never"))

    @property
    def keeps(self) -> bool:
        """Whether what the teacher says is captured once; it runs beside the training otherwise."""
        return self.config.capture.mode == "keep"

    @property
    def teaches(self) -> bool:
        """Whether the teacher runs beside the training."""
        read = bool(self.layer_terms) or self.outputs is not None
        return read and (not self.keeps or (self.outputs is not None and self.outputs.live))

    @property
    def deepest(self) -> int:
        """The deepest teacher layer that is read."""
        return max((layer for pair in self.pairs for layer in pair.teacher), default=0)

    @property
    def shard(self) -> float:
        """Bytes of a file of what is kept."""
        return self.config.capture.shard_mb * 1e6

    @property
    def cache_dtype(self) -> str:
        """The type in which states are kept."""
        name = str(self.own.get("cache_dtype", "float32"))
        return name if name != "auto" else "bfloat16" if on_gpu(self.config.device) else "float32"

    @property
    def read_as(self) -> int:
        """Bytes of a number of a kept state once it is read."""
        return 2 if self.cache_dtype == "bfloat16" else 4

    def stored(self, width: int) -> int:
        """Return the bytes of a kept state; eight-bit numbers have a scale beside them."""
        return width + 4 if self.cache_dtype == "float8_e4m3" else self.read_as * width

    def batch(self, rows: Rows) -> Batch:
        """Return the largest batch that goes through the student in one forward pass of the training."""
        optim = self.config.optim
        if optim.tokens_per_batch is None:
            return rows.widest(self.micro)
        whole = rows.within(optim.tokens_per_batch)
        return (
            whole if optim.micro_batch_size is None else rows.widest(min(whole.rows, optim.micro_batch_size))
        )

    @property
    def target_width(self) -> int:
        """Channels of what is kept of the teacher for a student layer."""
        whole = self.projects or self.learns
        return self.teacher.width if whole else self.student.width

    @property
    def micro(self) -> int:
        """Rows per forward pass of the training."""
        return self.config.optim.micro_batch_size or self.config.optim.batch_size


def wanted(
    config: Config, teacher: Shape, student: Shape, kept: Sequence[int] | None, cfg: DictConfig
) -> Wanted:
    """Read a request.

    Args:
        config: the request, with its method's own values settled.
        teacher: its shape.
        student: its shape.
        kept: the teacher's layers that a cut student keeps; None: it is not cut.
        cfg: the request as it was composed; its strategies are built from it.

    Raises:
        RequestError: a method or a term of a plugin, or pairs that these models cannot have.
    """
    _check_own(cfg.method, "method")
    method: Method = build(cfg.method)
    choice = _choice(cfg)
    pairs: tuple[LayerPair, ...] = ()
    scores = similarity = False
    if "mapping" in method.uses:
        pairing: Pairing = of_student(choice.mapping, kept, teacher.layers)
        scores, similarity = pairing.needs_scores, pairing.needs_similarity
        pairs = pairing.pairs(teacher.layers, student.layers, *_assumed(teacher.layers, student.layers))
    reads = [method.reads(stage, choice).rows for stage in (*method.results, "transfer")]
    return Wanted(
        config=config,
        teacher=teacher,
        student=student,
        strategy=method,
        semantics=choice.semantics,
        pairs=pairs,
        scores=scores,
        similarity=similarity,
        terms=tuple(
            (choice.objective.terms[name], own) for name, own in config.objective["terms"].items() if own
        ),
        taught=method.is_taught(config.data.unlabelled is not None)
        and any("train" in rows for rows in reads),
    )


def _choice(cfg: DictConfig) -> Choice:
    for name, own in cfg.objective.terms.items():
        if own is not None:
            _check_own(own, f"objective.terms.{name}")
    return Choice(mapping=build(cfg.mapping), semantics=build(cfg.semantics), objective=build(cfg.objective))


def _check_own(node: Mapping[str, Any], key: str) -> None:
    target = str(node["_target_"])
    if not target.startswith("pkt."):
        raise RequestError(
            f"{key} is {target}, of which pkt plan does not know what it takes: it knows those of pkt. Run the request "
            "on few rows (data.sizes) to see"
        )


def _assumed(teacher: int, student: int) -> tuple[list[float], list[list[float]]]:
    """Return scores and similarities with which what is not known yet falls into the middle of the models."""
    scores = [1.0 / (1.0 + abs(layer - (teacher + 1) / 2)) for layer in range(1, teacher + 1)]
    every = range(1, student + 1)
    return scores, [[1.0 - abs(t / teacher - s / student) for s in every] for t in range(1, teacher + 1)]
