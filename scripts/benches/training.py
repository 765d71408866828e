"""Training steps: v1, joint and a stage of the frontier, as pkt takes them and as the textbook does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benches.case import Case, Numbers, Work
from benches.shape import Shape
from pkt.config import OptimConfig
from pkt.data.batching import collate, epoch_batches
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from pkt.models.precision import too_slow
from pkt.models.taps import Interface
from pkt.objectives import Cosine, CrossEntropy, Divergence, Objective, OutputCosine, OutputHead
from pkt.semantics import AlignmentMap, HeadView
from pkt.semantics import Cosine as CosineMap
from pkt.training.capture import advance, capture, capture_all
from pkt.training.forward import Targets, TransferLoss
from pkt.training.loop import Trainer
from pkt.training.passes import Pass, Prefix, Read, ReadOut
from pkt.training.states import States
from pkt.training.teacher import Kept, TopRows
from pkt.training.trainable import Trainable, Update, make_trainable
from textbook.maps import recomposed, textbook_basis
from textbook.steps import Step

EPOCHS = 5
LR = 1e-4  # small: steps are repeated, and should stay alike


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained on what.

    Attributes:
        every_layer: all student layers are paired and train; otherwise the shape's one.
        through_vocabulary: targets go over the vocabulary; otherwise through a plain matrix, as a ridge map's.
        bfloat16: pkt runs what is frozen in it.
    """

    interface: Interface
    objective: Objective
    update: Update
    every_layer: bool = False
    through_vocabulary: bool = False
    bfloat16: bool = False

    def pairs(self, shape: Shape) -> list[tuple[int, int]]:
        """Return (teacher layer, student layer) of each pair."""
        layers = range(1, shape.student_depth + 1) if self.every_layer else [shape.layer]
        return [(shape.opposite(k), k) for k in layers]

    def map(self, shape: Shape, teacher: Architecture, student: Architecture) -> AlignmentMap:
        """Return the map from the teacher's space to the student's."""
        if not self.through_vocabulary:
            return AlignmentMap(weight=plain_matrix(shape))
        views = (HeadView(weight=arch.head_weight().detach()) for arch in (teacher, student))
        return CosineMap().fit(teacher=next(views), student=next(views))

    def projection(
        self, shape: Shape, teacher: Architecture, student: Architecture
    ) -> Callable[[Tensor], Tensor]:
        """Return what the textbook makes targets with."""
        if not self.through_vocabulary:
            matrix = plain_matrix(shape)
            return partial(torch.nn.functional.linear, weight=matrix)
        bases = [textbook_basis(arch.head_weight().detach()) for arch in (teacher, student)]
        return partial(_over_tokens, bases)


V1 = Recipe(
    interface=Interface.mlp,
    objective=Objective(terms={"layer": Cosine(positions="answer"), "output": OutputCosine()}),
    update=Update(kind="lora", rank=16, alpha=16.0),
    through_vocabulary=True,
)
JOINT = Recipe(
    interface=Interface.block,
    objective=Objective(
        terms={"layer": Cosine(weight=30.0), "kl": Divergence(weight=0.5), "ce": CrossEntropy(weight=0.5)}
    ),
    update=Update(kind="full"),
    every_layer=True,
)
STAGE = Recipe(
    interface=Interface.block,
    objective=Objective(terms={"layer": Cosine()}),
    update=Update(kind="full"),
)


def plain_matrix(shape: Shape) -> Tensor:
    """Draw a matrix from the teacher's space to the student's."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(shape.student_width, shape.teacher_width, generator=generator)
    return drawn.div_(shape.teacher_width**0.5).to(shape.device)


@dataclass(kw_only=True)
class Prepared:
    """All that pkt's training reads, after the teacher has gone."""

    recipe: Recipe
    shape: Shape
    encoded: Encoded
    student: Architecture
    targets: dict[int, States]
    outputs: TopRows | None
    trainable: Trainable
    head: OutputHead
    prefix: Prefix | None = None

    def train(self, epochs: int) -> Numbers:
        """Train for some epochs, and return the losses and the gradient's length of the last step."""
        found: list[dict[str, float]] = []
        plan = [epoch_batches(self.encoded.lengths, self.shape.rows, seed=0, epoch=e) for e in range(epochs)]
        Trainer(
            loss=TransferLoss(
                arch=self.student,
                objective=self.recipe.objective,
                interface=self.recipe.interface,
                targets=Targets(
                    source=Kept(states=self.targets, outputs=self.outputs),
                    layers=tuple(self.targets),
                    positions=self.recipe.objective.positions,
                ),
                prefix=self.prefix,
                head=self.head,
                autocast=self.recipe.bfloat16,
            ),
            parameters=self.trainable.parameters,
            plan=plan,
            collate=lambda rows: collate(self.encoded, rows).to(self.shape.device),
            optim=OptimConfig(
                lr=LR, batch_size=self.shape.rows, micro_batch_size=None, schedule="constant", warmup=0.0
            ),
            listen=lambda _step, metrics: found.append(metrics),
        ).fit()
        named = {key.removeprefix("loss_"): value for key, value in found[-1].items()}
        return numbers({name: named[name] for name in self.recipe.objective.terms}, named["grad_norm"])


def _over_tokens(bases: list[Tensor], states: Tensor) -> Tensor:
    targets: Tensor = recomposed(states, *bases)
    return targets


def numbers(losses: dict[str, float], norm: float) -> Numbers:
    """Return what two trainings are compared by."""
    return {
        name: torch.tensor(value, dtype=torch.float64) for name, value in (losses | {"norm": norm}).items()
    }


def prepared(recipe: Recipe, shape: Shape, rows: int) -> Prepared:
    """Let the teacher read the rows once, and free it."""
    encoded, teacher, student = shape.encoded(rows), shape.teacher(), shape.student()
    map_ = recipe.map(shape, teacher, student)
    if recipe.bfloat16:
        teacher.model.bfloat16()
        student.model.bfloat16()
    targets = capture(
        teacher,
        encoded,
        {k: Read(layers=(t,), width=shape.student_width, map=map_) for t, k in recipe.pairs(shape)},
        interface=recipe.interface,
        positions=recipe.objective.positions,
        batch_size=shape.rows,
    )
    outputs = None
    if (wanted := recipe.objective.outputs) is not None:
        read_out = ReadOut(
            shared=torch.arange(shape.vocabulary), temperature=wanted.temperature, top_k=wanted.top_k
        )
        passing = Pass(arch=teacher, encoded=encoded, outputs=read_out)
        outputs = TopRows.among(capture_all(passing, batch_size=shape.rows))
    trainable = make_trainable(student, recipe.update, [k for _, k in recipe.pairs(shape)])
    return Prepared(
        recipe=recipe, shape=shape, encoded=encoded, student=student, targets=targets, outputs=outputs,
        trainable=trainable, head=OutputHead(arch=student),
    )  # fmt: skip


def entering(work: Prepared, layer: int, before: Prefix | None = None) -> Prefix:
    """Return the states that enter a layer of the student."""
    autocast = torch.autocast(work.shape.device, torch.bfloat16, enabled=work.recipe.bfloat16)
    with autocast:
        return advance(work.student, work.encoded, layer - 1, before, batch_size=work.shape.rows)


def our_step(recipe: Recipe, shape: Shape) -> Work:
    """Prepare one optimiser step; what comes before it is not timed."""
    work = prepared(recipe, shape, shape.rows)
    if not recipe.every_layer and shape.layer > 1:
        work.prefix = entering(work, shape.layer)
    return partial(work.train, 1)


def our_stage(shape: Shape) -> Work:
    """Prepare a stage of the frontier: states go through one more block, which enter the layer that trains."""
    work = prepared(STAGE, shape, shape.rows)
    below = shape.layer - 1
    before = entering(work, below) if below > 1 else None

    def stage() -> Numbers:
        work.prefix = entering(work, shape.layer, before)
        return work.train(1)

    return stage


def our_whole(shape: Shape) -> Work:
    """Prepare nothing: models, map, one pass of the teacher, states below the layer, and all epochs are timed."""

    def whole() -> Numbers:
        work = prepared(V1, shape, 2 * shape.rows)
        work.prefix = entering(work, shape.layer) if shape.layer > 1 else None
        return work.train(EPOCHS)

    return whole


def textbook_of(recipe: Recipe, shape: Shape) -> Step:
    """Return the textbook's step: both models stay, the student runs from its tokens to its logits."""
    teacher, student = shape.teacher(), shape.student()
    project = recipe.projection(shape, teacher, student)
    trainable = make_trainable(student, recipe.update, [k for _, k in recipe.pairs(shape)])
    parameters = list(trainable.parameters.values())
    return Step(
        teacher=teacher,
        student=student,
        parameters=parameters,
        optimiser=torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0),
        pairs=recipe.pairs(shape),
        interface=recipe.interface,
        positions=recipe.objective.positions,
        project=project,
        weights={name: term.weight for name, term in recipe.objective.terms.items()},
    )


def textbook_step(recipe: Recipe, shape: Shape) -> Work:
    """Prepare one step of the textbook's."""
    step, batch = textbook_of(recipe, shape), shape.batch()

    def once() -> Numbers:
        parameters = step.parameters
        step.optimiser = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)  # as pkt's loop, each time
        return _compared(step(batch))

    return once


def textbook_whole(shape: Shape) -> Work:
    """Prepare nothing of the textbook's training."""

    def whole() -> Numbers:
        step, encoded = textbook_of(V1, shape), shape.encoded(2 * shape.rows)
        for epoch in range(EPOCHS):
            for rows in epoch_batches(encoded.lengths, shape.rows, seed=0, epoch=epoch):
                found = step(collate(encoded, rows).to(shape.device))
        return _compared(found)

    return whole


def _compared(found: dict[str, float]) -> Numbers:
    return numbers({name: value for name, value in found.items() if name != "norm"}, found["norm"])


def _no_bfloat16(shape: Shape) -> str | None:
    return too_slow(torch.bfloat16, torch.device(shape.device))


_TEXTBOOK = "teacher live, whole student, logits everywhere"
CASES = (
    Case(
        name="v1_step",
        title="v1 step (one layer of the student trains)",
        does="kept targets, cached states below the layer, no logits",
        textbook_does=f"{_TEXTBOOK}; targets over all V tokens",
        ours=partial(our_step, V1),
        textbook=partial(textbook_step, V1),
        faster=12,
        smaller=3,
    ),
    Case(
        name="v1_step_bfloat16",
        title="v1 step, frozen parts in bfloat16",
        does="the same in bfloat16; what trains is float32",
        textbook_does=f"{_TEXTBOOK}, in float32",
        ours=partial(our_step, replace(V1, bfloat16=True)),
        textbook=partial(textbook_step, V1),
        error=0.1,
        faster=25,
        smaller=3,
        unavailable=_no_bfloat16,
    ),
    Case(
        name="joint_step",
        title="joint step (all layers train; KL and labels)",
        does="kept targets of all layers, kept top-64 of the teacher",
        textbook_does=f"{_TEXTBOOK}; targets by the same matrix",
        ours=partial(our_step, JOINT),
        textbook=partial(textbook_step, JOINT),
        faster=1.5,
    ),
    Case(
        name="frontier_stage",
        title="frontier stage (states move up a block, one step)",
        does="one block for the states, one for the step",
        textbook_does=f"{_TEXTBOOK}",
        ours=our_stage,
        textbook=partial(textbook_step, STAGE),
    ),
    Case(
        name="end_to_end",
        title=f"v1 end to end ({EPOCHS} epochs of two batches)",
        does="models, map, teacher once, states below the layer once, training",
        textbook_does=f"models, dense bases, training: {_TEXTBOOK}",
        ours=our_whole,
        textbook=textbook_whole,
        faster=6,
        smaller=3,
    ),
)
