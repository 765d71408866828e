"""What Seeking and LaTen look for: sensitive weights, their window, and the neurons that matter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benches.case import Case, Numbers, Work
from benches.shape import Shape, one
from pkt.attribution.locate import layer_scores, neuron_scores, observe
from pkt.attribution.sensitivity import sensitivity
from pkt.attribution.windows import best_window
from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from textbook.neurons import slow
from textbook.weights import brute_force, textbook_sensitivity

KEPT = ("up_proj.weight", "down_proj.weight", "v_proj.weight", "o_proj.weight")  # what Seeking transfers


def our_sensitivity(shape: Shape) -> Work:
    """Prepare sums on disk, a gradient at a time."""
    shape = one(shape)
    teacher, rows = shape.teacher(), shape.encoded()
    keep = {name for name, _ in teacher.model.named_parameters() if name.endswith(KEPT)}

    def scores() -> Numbers:
        with tempfile.TemporaryDirectory() as folder:
            sums = sensitivity(
                teacher, lambda i: collate(rows, [i]), len(rows.lengths), keep=keep, folder=Path(folder)
            )
            return {"layers": torch.tensor(sums.layer_scores(teacher), dtype=torch.float64)}

    return scores


def sensitivity_in_memory(shape: Shape) -> Work:
    """Prepare sums of all gradients at once."""
    shape = one(shape)
    teacher, rows = shape.teacher(), shape.encoded()

    def scores() -> Numbers:
        totals = textbook_sensitivity(teacher.model, rows)
        return {"layers": torch.stack([_of_layer(teacher, totals, i) for i in range(teacher.depth)])}

    return scores


def _of_layer(arch: Architecture, totals: dict[str, torch.Tensor], index: int) -> torch.Tensor:
    own = [total for name, total in totals.items() if name.startswith(f"{arch.roles.layers}.{index}.")]
    return torch.stack([total.sum(dtype=torch.float64) for total in own]).sum()


def _scored(shape: Shape) -> tuple[torch.Tensor, tuple[int, int]]:
    side = shape.teacher_width // 4
    score = torch.rand(side, side, generator=torch.Generator().manual_seed(7))
    return score, (2 * side // 3, 2 * side // 3)


def our_window(shape: Shape) -> Work:
    """Prepare the window of the largest sum by prefix sums."""
    score, size = _scored(shape)
    return lambda: {"corner": torch.tensor(best_window(score, size))}


def every_window(shape: Shape) -> Work:
    """Prepare the same by trying every place."""
    score, size = _scored(shape)
    return lambda: {"corner": torch.tensor(brute_force(score, size))}


def _one_layer(shape: Shape) -> tuple[Encoded, Architecture]:
    return one(shape).encoded(), shape.model(1, shape.student_width // 4, seed=2)


def our_neurons(shape: Shape) -> Work:
    """Prepare the scores of a layer's neurons by products."""
    rows, arch = _one_layer(shape)

    def scores() -> Numbers:
        observed = observe(arch, rows)
        of_layers = [layer_scores(observed, "attention")[0], layer_scores(observed, "ffn")[0]]
        return {
            "layer": torch.tensor(of_layers),
            "attention": neuron_scores(arch, observed, 1, "attention"),
            "ffn": neuron_scores(arch, observed, 1, "ffn"),
        }

    return scores


def neuron_by_neuron(shape: Shape) -> Work:
    """Prepare the same by a read-out per neuron."""
    rows, arch = _one_layer(shape)

    def scores() -> Numbers:
        ((attention, ffn, attention_neurons, ffn_neurons),) = slow(arch.model, rows)
        return {"layer": torch.cat([attention, ffn]), "attention": attention_neurons, "ffn": ffn_neurons}

    return scores


CASES = (
    Case(
        name="seeking",
        title="Seeking: sensitivity of the teacher's weights",
        does="each gradient is added to a file and freed",
        textbook_does="all gradients and sums in memory",
        ours=our_sensitivity,
        textbook=sensitivity_in_memory,
    ),
    Case(
        name="seeking_window",
        title="Seeking: window of the largest sum",
        does="prefix sums",
        textbook_does="the sum of every place",
        ours=our_window,
        textbook=every_window,
        error=0.0,
    ),
    Case(
        name="laten",
        title="LaTen: neurons of one layer",
        does="one product per kind of neuron",
        textbook_does="a read-out per neuron",
        ours=our_neurons,
        textbook=neuron_by_neuron,
        error=1e-2,
    ),
)
