"""What the forms of SemAlign add to the shared parts: spans of teacher layers, terms per stage, lengths of targets."""

from __future__ import annotations

import pytest
import torch

from pkt.data.encoding import Encoded
from pkt.mapping import LayerPair
from pkt.methods.frontier import Frontier
from pkt.methods.layerwise import length_ratio
from pkt.methods.semalign_geometry import spanned
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.semantics import AlignmentMap
from pkt.training.capture import capture
from pkt.training.passes import Read
from pkt.training.states import Reordered, RowStates
from terms import objective
from tiny import tiny_model


def pairs(*teacher: int) -> tuple[LayerPair, ...]:
    return tuple(LayerPair(student=k, teacher=(layer,)) for k, layer in enumerate(teacher, start=1))


def test_a_span_takes_every_teacher_layer_since_the_previous_pair():
    wide = spanned(pairs(2, 3, 6))
    assert [pair.teacher for pair in wide] == [(1, 2), (3,), (4, 5, 6)]
    assert [pair.weights for pair in wide] == [(1.0, 1.0), (1.0,), (1.0, 1.0, 1.0)]


def test_a_pair_that_goes_back_keeps_its_own_layer():
    assert [pair.teacher for pair in spanned(pairs(4, 2, 5))] == [(1, 2, 3, 4), (2,), (5,)]


def test_residuals_of_a_span_add_up_to_the_change_of_the_stream():
    arch = Architecture.of(tiny_model("llama", depth=5, width=32, seed=1))
    encoded = Encoded(input_ids=[[5, 6, 7, 8, 9], [3, 4, 5]], prompt_lengths=[2, 1])
    (_, wide) = spanned(pairs(2, 5))

    def read(interface: Interface, **what: object) -> torch.Tensor:
        reads = {1: Read(width=32, **what)}
        states = capture(arch, encoded, reads, interface=interface, positions="all", batch_size=2)
        return states[1].flat()

    summed = read(Interface.residual, layers=wide.teacher, weights=wide.weights)
    change = read(Interface.block, layers=(5,)) - read(Interface.block, layers=(2,))
    torch.testing.assert_close(summed, change, rtol=1e-4, atol=1e-4)


WHOLE = objective("auto", fisher={}, kl={})


@pytest.mark.parametrize(
    ("frontier", "last", "paired", "terms"),
    [
        (Frontier(output_at="last", last_layer_term=False), False, True, ["layer"]),
        (Frontier(output_at="last", last_layer_term=False), True, True, ["kl"]),
        (Frontier(output_at="last"), True, True, ["layer", "kl"]),
        (Frontier(), False, True, ["layer", "kl"]),
        (Frontier(), True, False, ["kl"]),
        (Frontier(output_at="last"), False, False, ["kl"]),  # nothing else to train on
    ],
)
def test_terms_of_a_stage(frontier, last, paired, terms):
    stage = frontier.objective(WHOLE, last=last, paired=paired)
    assert list(stage.terms) == terms
    assert stage.balance == ("auto" if len(terms) == 2 else "none")


def test_targets_without_lengths_get_the_mean_length_of_the_students():
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([0, 50])
    teacher = RowStates(flat_ND=torch.randn(50, 6, generator=generator), offsets_R1=offsets)
    student = RowStates(flat_ND=7 * torch.randn(50, 4, generator=generator), offsets_R1=offsets)
    weight = torch.randn(4, 6, generator=generator)
    directions = AlignmentMap(weight=weight, normalise=True)
    ratio = length_ratio(directions, teacher, student)
    read = Read(layers=(1,), width=4, map=directions, scale=ratio)
    mapped_ND = read({1: teacher.flat()[None]}, torch.ones(1, 50, dtype=torch.bool))
    assert float(mapped_ND.norm(dim=-1).mean()) == pytest.approx(float(student.flat().norm(dim=-1).mean()))
    assert length_ratio(AlignmentMap(weight=weight), teacher, student) == 1.0


def test_shuffled_states_are_the_same_states_elsewhere():
    states = RowStates(flat_ND=torch.arange(12.0).view(6, 2), offsets_R1=torch.tensor([0, 2, 6]))
    shuffled = Reordered(states=states, order_N=torch.tensor([3, 5, 0, 2, 4, 1]))
    assert not torch.equal(shuffled.flat(), states.flat())
    assert sorted(map(tuple, shuffled.flat().tolist())) == sorted(map(tuple, states.flat().tolist()))
    assert torch.equal(shuffled.offsets_R1, states.offsets_R1)
