"""What every term keeps to in training: means over whole steps, its own positions, nothing it did not ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pkt.config import OptimConfig
from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface, tap
from pkt.objectives import (
    Cosine,
    CrossEntropy,
    Labels,
    LayerTerm,
    MeanSquare,
    Objective,
    OutputHead,
    Outputs,
    RowIds,
    Sizes,
    States,
    View,
)
from pkt.training.attended import AttendedRead
from pkt.training.capture import capture
from pkt.training.chunked import ChunkRead
from pkt.training.forward import Targets, TransferLoss
from pkt.training.loop import Trainer
from pkt.training.passes import Read, ReadOut
from pkt.training.teacher import Kept, LiveTeacher
from pkt.training.trainable import Update, make_trainable
from terms import objective, view_of
from tiny import tiny_model

MATRIX = torch.randn(32, 48, generator=torch.Generator().manual_seed(3)) / 7
EVERY = {
    "cosine": objective(cosine={}),
    "mean_square": objective(mean_square={}),
    "fisher": objective(fisher={"top_k": 20}),
    "geometry": objective(geometry={}),
    "output": objective(output={}),
    "ce": objective(ce={}),
    "kl": objective(kl={"top_k": 20}),
    "reverse": objective(kl={"top_k": None, "kind": "reverse"}),
    "uld": objective(uld={"top_k": 20}),
    "attended": objective(attended={}, ce={}),
    "chunk": objective(chunk={"ends": "any"}, kl={"top_k": 20}),
    "auto": objective("auto", geometry={"weight": 2.0}, kl={"weight": 0.5}, ce={"weight": 0.5}),
}


def rows(lengths=(9, 6, 12, 7, 5, 11), prompts=(4, 2, 8, 6, 1, 3)) -> Encoded:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 320, (length,), generator=generator).tolist() for length in lengths]
    return Encoded(input_ids=ids, prompt_lengths=list(prompts))


def own_modules(whole: Objective) -> dict[str, torch.nn.Module]:
    """The modules of terms that have some, the same ones each time."""
    torch.manual_seed(5)
    sizes = Sizes(states={}, targets={}, rows=9, student=32, teacher=48)
    made = {name: term.modules(sizes) for name, term in whole.terms.items()}
    return {name: module for name, module in made.items() if module is not None}


class Scene:
    """A student of four layers with targets for two of them, and a live teacher."""

    def __init__(
        self, whole: Objective, encoded: Encoded, update: str = "full", dropout: float = 0.0
    ) -> None:
        teacher = Architecture.of(tiny_model("llama", depth=6, width=48, seed=1))
        self.arch, self.encoded = Architecture.of(tiny_model("llama", seed=2)), encoded
        reads = {k: Read(layers=(t,), width=32, map=lambda h: h @ MATRIX.T) for t, k in ((3, 2), (6, 4))}
        targets = capture(
            teacher, encoded, reads, interface=Interface.block, positions=whole.positions, batch_size=4
        )
        shared, outputs = torch.arange(320), whole.outputs or Outputs()
        self.trainable = make_trainable(
            self.arch, Update(kind=update, rank=4, alpha=4.0, dropout=dropout), [2, 4]
        )
        self.loss = TransferLoss(
            arch=self.arch,
            objective=whole,
            interface=Interface.block,
            targets=Targets(
                source=Kept(
                    states=targets if whole.layer_terms else {},
                    outputs=LiveTeacher(
                        arch=teacher,
                        read_out=ReadOut(
                            shared=shared,
                            temperature=outputs.temperature,
                            top_k=outputs.top_k,
                            ordered=outputs.ordered,
                        ),
                        chunks=whole.chunks and ChunkRead(ends=whole.chunks.ends),
                        attended=AttendedRead.of(teacher) if whole.attends else None,
                    )
                    if whole.reads_outputs
                    else None,
                ),
                layers=tuple(targets) if whole.layer_terms else (),
                positions=whole.positions,
            ),
            prefix=None,
            head=OutputHead(arch=self.arch, shared=shared),
            own=own_modules(whole),
        )

    def step(self, micro: int, chosen: list[int]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """One optimiser step that moves nothing: its metrics, and the gradients."""
        found: list[dict[str, float]] = []
        Trainer(
            loss=self.loss,
            parameters=self.trainable.parameters,
            plan=[[chosen]],
            collate=lambda part: collate(self.encoded, part),
            optim=OptimConfig(lr=0.0, batch_size=99, micro_batch_size=micro, max_grad_norm=0.0),
            listen=lambda _step, metrics: found.append(metrics),
            finish_step=self.loss.finish_step,
        ).fit()
        gradients = {n: p.grad for n, p in self.trainable.parameters.items() if p.grad is not None}
        return found[0], gradients


@pytest.mark.parametrize("name", EVERY)
def test_micro_batches_change_neither_losses_nor_gradients(name):
    found = [Scene(EVERY[name], rows()).step(micro, [5, 0, 3, 2, 4, 1]) for micro in (6, 1, 4)]
    for metrics, gradients in found[1:]:
        assert metrics == pytest.approx(found[0][0], rel=1e-4, abs=1e-7)
        assert gradients.keys() == found[0][1].keys() != set()
        for key, gradient in gradients.items():
            largest = float(found[0][1][key].abs().max())
            torch.testing.assert_close(gradient, found[0][1][key], rtol=0, atol=1e-4 * largest + 1e-9)


def test_comparing_whole_steps_first_draws_the_dropout_that_training_then_has():
    scene = Scene(EVERY["auto"], rows(), update="lora", dropout=0.5)
    drawn: list[float] = []
    whole = scene.loss.objective
    layer = whole.terms["layer"]

    class Watching:
        weight, needs = layer.weight, layer.needs

        def count(self, view: View) -> int:
            return layer.count(view)

        def modules(self, _sizes: object) -> None:
            return None

        def __call__(self, view: View):
            sums = layer(view)
            drawn.append(float(sums.total.detach().sum()))
            return sums

    scene.loss.objective = replace(whole, terms={**whole.terms, "layer": Watching()})
    scene.step(2, [0, 1, 2, 3, 4, 5])
    assert len(drawn) == 6
    assert drawn[:3] == drawn[3:]  # the same masks in both passes
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("micro", [6, 2])
def test_a_term_without_anything_in_a_step_contributes_nothing(micro):
    short = rows(lengths=(1, 2, 1), prompts=(1, 1, 1))  # no sequence but one has two tokens
    alone = [0, 2]
    terms = {"layer": EVERY["geometry"].terms["layer"], "ce": CrossEntropy()}
    encoded = replace(short, prompt_lengths=[1, 1, 1])
    metrics, gradients = Scene(Objective(terms=terms), encoded).step(micro, alone)
    assert {name for name in metrics if name.startswith("loss")} == {"loss"}
    assert metrics["loss"] == metrics["grad_norm"] == 0.0
    assert gradients == {}
    metrics, gradients = Scene(Objective(terms=terms), encoded).step(micro, [0, 1, 2])
    assert metrics["loss_ce"] > 0
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_terms_with_different_positions_see_their_own():
    mixed = Objective(
        terms={"wide": Cosine(), "narrow": MeanSquare(positions="answer"), "ce": CrossEntropy()}
    )
    assert mixed.positions == "all"
    chosen = [3, 0, 4, 5]
    together, _ = Scene(mixed, rows()).step(2, chosen)
    for name in ("wide", "narrow"):
        alone, _ = Scene(Objective(terms={name: mixed.terms[name]}), rows()).step(2, chosen)
        assert together[f"loss_{name}"] == pytest.approx(alone[f"loss_{name}"], rel=1e-6)


def test_targets_are_those_of_the_positions():
    encoded = rows()
    for positions in ("answer", "all"):
        scene = Scene(objective(cosine={"positions": positions}), encoded)
        seen = scene.loss._forward(collate(encoded, [2, 0]), with_output=False)
        pair = seen.view(Cosine(positions="answer")).pairs[0]
        teacher = tiny_model("llama", depth=6, width=48, seed=1)
        expected = []
        for r in (2, 0):
            with torch.no_grad(), tap(Architecture.of(teacher), [3], Interface.block) as states:
                teacher(input_ids=torch.tensor([encoded.input_ids[r]]))
            expected.append(states[3][0, encoded.prompt_lengths[r] - 1 : -1] @ MATRIX.T)
        torch.testing.assert_close(pair.targets_ND, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_view_gives_what_was_asked_for_and_nothing_else():
    states = torch.zeros(3, 2)
    view = view_of(states, states)
    for read, need in (("labels_N", "Labels"), ("head", "Head"), ("teacher", "Outputs"), ("row_N", "RowIds")):
        with pytest.raises(AssertionError, match=f"a term reads {need}, which is not among its needs"):
            getattr(view, read)
    with pytest.raises(AssertionError, match="no final ones"):
        _ = view.final_ND


def test_labels_row_ids_and_sequences_belong_to_the_positions():
    class Curious(LayerTerm):
        @property
        def needs(self):
            return (States(positions="answer"), Labels(), RowIds())

        def pair_sum(self, pair, view):
            return pair.states_ND.sum() * 0

    encoded = rows()
    scene = Scene(objective(cosine={}), encoded)
    scene.loss.first_row = 100
    view = scene.loss._forward(collate(encoded, [3, 2, 0]), with_output=True).view(Curious())
    expected = [(r, t) for r in (3, 2, 0) for t in encoded.input_ids[r][encoded.prompt_lengths[r] :]]
    assert view.labels_N.tolist() == [token for _, token in expected]
    assert view.row_N.tolist() == [100 + row for row, _ in expected]
    assert len(view.pairs[0].states_ND) == len(view.pairs[0].targets_ND) == view.count == len(expected)


def test_a_term_has_to_count_what_it_announced():
    class Wrong(Cosine):
        def __call__(self, view):
            return replace(super().__call__(view), count=view.count + 1)

    with pytest.raises(AssertionError, match="term x announced a sum over"):
        Scene(Objective(terms={"x": Wrong()}), rows()).step(6, [0, 1])
