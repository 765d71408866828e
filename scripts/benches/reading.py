"""What is read of the teacher: attribution of its layers, its states, its outputs."""

from __future__ import annotations

import torch

from benches.case import Case, Numbers, Work
from benches.shape import Shape, few, one
from benches.training import V1
from pkt.attribution import layer_attribution
from pkt.models.taps import Interface
from pkt.training.capture import capture, capture_all
from pkt.training.passes import LOG_PROBS, LOG_TAIL, Pass, Read, ReadOut
from textbook.attribution import captum_products, reduced
from textbook.maps import recomposed, textbook_basis

TOP_K, TEMPERATURE = 64, 2.0


def our_attribution(shape: Shape) -> Work:
    """Prepare the scores of all layers of the teacher."""
    shape = one(shape)
    teacher, batch = shape.teacher(), shape.batch()
    return lambda: {"scores": layer_attribution(teacher, [batch], "mlp")}


def captum_attribution(shape: Shape) -> Work:
    """Prepare captum's, layer by layer."""
    shape = one(shape)
    teacher, batch = shape.teacher(), shape.batch()
    teacher.model.requires_grad_(False)
    teacher.model.get_input_embeddings().requires_grad_(True)  # captum needs a graph down to the first layer

    def scores() -> Numbers:
        products = captum_products(teacher, batch, "mlp")
        return {"scores": torch.stack([reduced(product, "example") for product in products])}

    return scores


def our_capture(shape: Shape) -> Work:
    """Prepare the targets of one layer over a batch."""
    shape = few(shape)
    teacher, student = shape.teacher(), shape.student()
    read = Read(
        layers=(shape.opposite(shape.layer),),
        width=shape.student_width,
        map=V1.map(shape, teacher, student),
    )
    encoded = shape.encoded()

    def states() -> Numbers:
        kept = capture(
            teacher, encoded, {shape.layer: read}, interface=Interface.block, positions="answer",
            batch_size=shape.rows,
        )  # fmt: skip
        return {"targets": kept[shape.layer].flat()}

    return states


def whole_capture(shape: Shape) -> Work:
    """Prepare a pass that keeps all states of all layers and forms logits."""
    shape = few(shape)
    teacher, student, batch = shape.teacher(), shape.student(), shape.batch()
    bases = [textbook_basis(arch.head_weight().detach()) for arch in (teacher, student)]

    @torch.no_grad()
    def states() -> Numbers:
        found = teacher.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True,
            use_cache=False,
        ).hidden_states  # fmt: skip
        return {"targets": recomposed(found[shape.opposite(shape.layer)], *bases)[batch.supervised]}

    return states


def our_outputs(shape: Shape) -> Work:
    """Prepare the kept distributions of the teacher over a batch."""
    shape = few(shape)
    teacher, encoded = shape.teacher(), shape.encoded()
    read_out = ReadOut(shared=torch.arange(shape.vocabulary), temperature=TEMPERATURE, top_k=TOP_K)
    passing = Pass(arch=teacher, encoded=encoded, outputs=read_out)

    def outputs() -> Numbers:
        kept = capture_all(passing, batch_size=shape.rows)
        return {"kept": kept[LOG_PROBS].flat(), "rest": kept[LOG_TAIL].flat()[:, 0]}

    return outputs


def whole_outputs(shape: Shape) -> Work:
    """Prepare whole distributions at every position."""
    shape = few(shape)
    teacher, batch = shape.teacher(), shape.batch()

    @torch.no_grad()
    def outputs() -> Numbers:
        logits = teacher.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits
        probabilities = (logits / TEMPERATURE).softmax(-1)
        kept = probabilities.topk(TOP_K, dim=-1)
        rest = probabilities.scatter(-1, kept.indices, 0.0).sum(-1)
        answer = batch.supervised
        return {"kept": kept.values.log()[answer], "rest": rest.log()[answer]}

    return outputs


CASES = (
    Case(
        name="attribution",
        title="attribution of the teacher's layers",
        does="all layers in one backward pass, logits of the answer alone",
        textbook_does="captum: a forward and a backward pass per layer",
        ours=our_attribution,
        textbook=captum_attribution,
    ),
    Case(
        name="capture",
        title="targets of one layer",
        does="stops above the layer, answer positions, one matrix",
        textbook_does="all states of all layers, logits, targets over all V tokens",
        ours=our_capture,
        textbook=whole_capture,
    ),
    Case(
        name="teacher_outputs",
        title="the teacher's distributions, top 64",
        does="logits of the answer alone",
        textbook_does="distributions at every position",
        ours=our_outputs,
        textbook=whole_outputs,
    ),
)
