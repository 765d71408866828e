"""The pull of a layer term on the untouched student: what it has to be where that is known."""

from __future__ import annotations

import pytest
import torch
from test_frontier import bench_of

from pkt.mapping import LayerPair
from pkt.methods.layer_results import LayerAlignment
from pkt.models.taps import Interface
from pkt.training.capture import capture
from pkt.training.passes import Read
from pulls import main, pulls
from terms import objective


def aligned(bench, layers, *, noise: float = 0.0, interface: str = "block") -> LayerAlignment:
    """Targets that are the student's own states, and some noise."""
    generator = torch.Generator().manual_seed(0)
    own = capture(
        bench.student.arch,
        bench.encoded("train"),
        {k: Read(layers=(k,), width=32) for k in layers},
        interface=Interface(interface),
        positions="all",
        batch_size=4,
    )
    for states in own.values():
        states.flat().add_(noise * torch.randn(states.flat().shape, generator=generator))
    pairs = tuple(LayerPair(student=k, teacher=(k,)) for k in layers)
    return LayerAlignment(pairs=pairs, interface=interface, positions="all", targets={"train": own})


def found(*, weight: float = 1.0, **how):
    bench = bench_of("llama", objective(mean_square={"weight": weight}, ce={}))
    return list(pulls(bench, aligned(bench, [1, 3], **how)))


def test_targets_that_are_the_students_own_states_do_not_pull_and_read_out_alike():
    for pull in found():
        assert pull.ratio < 1e-4
        assert pull.target == pytest.approx(pull.own, rel=1e-4)


def test_a_weight_scales_the_pull_and_does_not_turn_it():
    one, three = found(noise=0.1), found(noise=0.1, weight=3.0)
    assert [pull.layer for pull in one] == [1, 3]
    for light, heavy in zip(one, three, strict=True):
        assert light.ratio > 0
        assert heavy.ratio == pytest.approx(3 * light.ratio, rel=1e-3)
        assert heavy.cosine == pytest.approx(light.cosine, abs=1e-3)


def test_only_states_of_blocks_are_read_out():
    assert {(pull.target, pull.own) for pull in found(noise=0.1, interface="mlp")} == {(None, None)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=sft"], "method=sft brings no teacher states"),
        (["method=sfd"], "sfd"),
        (["optim.lr=x"], "optim.lr"),
    ],
)
def test_a_wrong_request_is_told_in_one_message(words, message, capsys):
    assert main(words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
