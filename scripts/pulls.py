"""Show how hard a layer term pulls on the untouched student, and whither: `python scripts/pulls.py method=... ...`.

request -> extract, align -> one batch of train rows -> gradients of the layer terms and of the output terms
                                                     -> labels read out from targets and from the student's own states

One line per paired layer, nothing is trained and nothing kept. Words are those of `pkt transfer`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from combinations import composed
from pkt import console
from pkt.data.batching import collate
from pkt.errors import PktError, RequestError
from pkt.explain import CONFIG_ERRORS, explain
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.task import Task
from pkt.methods.workbench import Workbench
from pkt.models.taps import Interface, decode, tap
from pkt.objectives import OutputHead
from pkt.pipeline import request
from pkt.training.forward import Seen, TransferLoss
from pkt.training.loop import reduced
from pkt.training.trainable import Update, make_trainable

SMALL = ("tracker=none", "data.sizes.train=20", "data.sizes.validation=10")
HEAD = (
    "layer  layer terms / output terms: |gradient|  cosine   cross-entropy of the labels: target  own state"
)


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What the objective does to one layer of the untouched student.

    Attributes:
        layer: student layer, from 1.
        ratio: |gradient of the weighted layer terms| / |gradient of the weighted output terms|, in its parameters.
        cosine: between the two gradients; below 0 the layer terms undo what the output terms want.
        target, own: cross-entropy of the labels, read out from the target and from the student's own state through
            its final norm and head; None where states are not those of blocks.
    """

    layer: int
    ratio: float
    cosine: float
    target: float | None
    own: float | None


def pulls(bench: Workbench, alignment: LayerAlignment) -> Iterator[Pull]:
    """Yield one per paired layer, from all train rows as one batch."""
    arch, train = bench.student.arch, bench.encoded("train")
    layers = sorted({pair.student for pair in alignment.pairs})
    trainable = make_trainable(arch, Update(kind="full"), layers, seed=bench.config.seed)
    task = Task(bench=bench, trainable=trainable, alignment=alignment)
    batch = collate(train, list(range(len(train.lengths)))).to(arch.device)
    for layer in layers:
        loss = task._loss(bench.objective, "train", [layer], None)
        parts = reduced(loss(batch), loss.counts(batch))
        weights = loss.weights({name: part.detach() for name, part in parts.items()})
        named = {f"loss_{name}" for name in bench.objective.layer_terms}
        own = list(arch.layer(layer).parameters())
        layer_terms, output_terms = (
            _gradient(
                [weights[name] * part for name, part in parts.items() if (name in named) is inside], own
            )
            for inside in (True, False)
        )
        states = _read_out(loss, layer, Seen(loss=loss, batch=batch)) if _blocks(alignment) else (None, None)
        yield Pull(
            layer=layer,
            ratio=float(layer_terms.norm() / output_terms.norm()),
            cosine=float(functional.cosine_similarity(layer_terms, output_terms, dim=0)),
            target=states[0],
            own=states[1],
        )


def _blocks(alignment: LayerAlignment) -> bool:
    return Interface(alignment.interface) is Interface.block


def _gradient(parts: list[Tensor], parameters: list[nn.Parameter]) -> Tensor:
    """Return the gradient of a sum, flat; zeros where there is nothing to sum."""
    if not parts:
        return torch.cat([torch.zeros_like(parameter).flatten() for parameter in parameters])
    found = torch.autograd.grad(torch.stack(parts).sum(), parameters, retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found])


@torch.no_grad()
def _read_out(loss: TransferLoss, layer: int, seen: Seen) -> tuple[float, float]:
    """Return the cross-entropy of the answer's tokens at a layer: of its targets, and of the student's states."""
    where, batch = seen.where("answer", taught=True), seen.batch
    with tap(loss.arch, [layer], Interface.block) as states:
        decode(loss.arch, batch.input_ids, batch.attention_mask)
    sides = loss.targets.of(layer, seen.given, batch, where), states[layer][where.row_N, where.student_N]
    lens, labels_N = OutputHead(arch=loss.arch).lens, seen.labels(where)
    target, own = (float(functional.cross_entropy(lens(side).float(), labels_N)) for side in sides)
    return target, own


def main(words: list[str]) -> int:
    """Print the table of one request, and return the exit code."""
    try:
        show(words)
    except PktError as error:
        console.fail(str(error))
        return error.exit_code
    except CONFIG_ERRORS as error:
        console.fail(explain(error))
        return 2
    return 0


def show(words: list[str]) -> None:
    """Print the table of one request.

    Raises:
        RequestError: it makes no sense, or its method has no layer terms.
    """
    bench, method = request(composed(*SMALL, *words))
    if method.provides.states != "student":
        raise RequestError(
            f"method={method.name} brings no teacher states into the student's space, so nothing pulls there; take "
            "semalign, semalign_fisher, semalign_geometry or semalign_joint."
        )
    with tempfile.TemporaryDirectory() as scratch:
        alignment = method.align(bench, method.extract(bench, Path(scratch)), Path(scratch))
    print(HEAD)
    for pull in pulls(bench, alignment):
        read = "-  -" if pull.target is None else f"{pull.target:.2f}  {pull.own:.2f}"
        print(f"{pull.layer:5d}  {pull.ratio:.2f}  {pull.cosine:+.2f}   {read}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
