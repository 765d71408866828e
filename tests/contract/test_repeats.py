"""The same request twice, and a request that was stopped and asked for again: the same bits, the same record."""

from __future__ import annotations

import pytest
import torch
from matrix import METHODS, TRAINED
from world import SAVING, Stop, StoppedError

from cases import mostly_slow

FAMILY = dict(zip(METHODS, ["llama", "qwen3", "gemma3_text", "gpt2"] * 3, strict=False)) | {"laten": "qwen3"}
# the frontier takes its last two steps in its second stage, whose layer these states enter
BETWEEN = {"semalign_fisher": "states entering layer 3 (train)", "semalign_geometry": "layer 3 (validation)"}
SOME = ("semalign_joint", "semalign_geometry", "laten")  # a kind of training each; the others are slow
STOPS = [
    *((method, Stop(step=step)) for method in TRAINED for step in (1, 3)),
    *((method, Stop(step=step)) for method in BETWEEN for step in (2, 4)),
    *((method, Stop(what=what)) for method, what in BETWEEN.items()),
    *((method, Stop(what=SAVING)) for method in METHODS),
    ("laten", Stop(what="hypernetwork")),
    ("seeking", Stop(what="cuts")),
]


def same(run, expected) -> None:
    assert run.weights.keys() == expected.weights.keys()
    for name, value in run.weights.items():
        assert torch.equal(value, expected.weights[name]), name
    assert run.record == expected.record
    assert run.steps == expected.steps[len(expected.steps) - len(run.steps) :]


@pytest.mark.parametrize("method", mostly_slow(METHODS, SOME.__contains__))
def test_one_seed_gives_the_same_bits(world, tmp_path, method):
    expected = world.shared(method, FAMILY[method])
    same(world.run(method, FAMILY[method], outputs=tmp_path), expected)
    assert len(expected.steps) == METHODS[method].steps


@pytest.mark.parametrize(
    ("method", "stop"),
    mostly_slow(STOPS, lambda method, stop: method in SOME and stop.step != 1),
    ids=[f"{m}-{s.what or s.step}" for m, s in STOPS],
)
def test_a_stopped_run_ends_with_the_bits_of_an_uninterrupted_one(world, tmp_path, method, stop):
    family = FAMILY[method]
    expected = world.shared(method, family)
    with pytest.raises(StoppedError):
        world.run(method, family, outputs=tmp_path, stop=stop)
    assert not list((tmp_path / "store" / "transfer").glob("*/manifest.json"))
    resumed = world.run(method, family, outputs=tmp_path)
    same(resumed, expected)
    if stop.step is not None:  # a step is remembered once the next one has begun
        assert len(resumed.steps) == METHODS[method].steps - stop.step + 1
    if stop.what == SAVING:
        assert resumed.steps == []
    assert not list((tmp_path / "store").glob("*/*.partial"))


DECAY = (
    "objective.terms.layer.decay=cosine",
    "objective.terms.layer.decay_to=0.1",
    "optim.micro_batch_size=3",
)
LEARNING = {
    "refitted": (("semantics.refit=epochs", *DECAY), (1, 2, 3)),  # a snapshot of step 2 holds the second fit
    "trained": (("semantics.trainable=true", "optim.weight_decay=0.1"), (1, 3)),
    "staged": (("semantics.refit=stages", "method.schedule=frontier", *DECAY), (1, 2, 3)),
    "staged-trained": (("semantics.trainable=true", "method.schedule=frontier"), (2, 3)),
}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        pytest.param(name, step, marks=[] if (name, step) == ("trained", 3) else pytest.mark.slow)
        for name, (_, stops) in LEARNING.items()
        for step in stops
    ],
)
def test_a_map_that_learns_is_resumed_where_it_was(world, tmp_path, name, step):
    settings, _ = LEARNING[name]
    expected = world.shared("semalign_joint", "llama", *settings)
    with pytest.raises(StoppedError):
        world.run("semalign_joint", "llama", *settings, outputs=tmp_path, stop=Stop(step=step))
    same(world.run("semalign_joint", "llama", *settings, outputs=tmp_path), expected)


def test_maps_are_fitted_again_between_epochs_and_weights_fall(world):
    still, refitted = (
        world.shared("semalign_joint", "llama", *settings) for settings in ((), LEARNING["refitted"][0])
    )
    assert [
        step for step, metrics in enumerate(refitted.steps, 1) if "map_explained_variance_1" in metrics
    ] == [2]
    weights = [metrics["weight_layer"] for metrics in refitted.steps]
    assert weights[0] == pytest.approx(30)
    assert weights[-1] == pytest.approx(3)
    assert not any("weight_layer" in metrics for metrics in still.steps)
    tokens = [run.record["budget"]["student_forward_tokens"] for run in (still, refitted)]
    assert tokens[1] > tokens[0]  # the align rows, once more


@pytest.mark.slow
def test_a_trained_map_is_counted_and_one_without_a_learning_rate_changes_nothing(world, tmp_path):
    fixed = world.shared("semalign_joint", "llama")
    frozen, trained = (
        world.run(
            "semalign_joint", "llama", "semantics.trainable=true", f"semantics.map_lr={lr}", outputs=tmp_path
        )
        for lr in (0, 1)
    )
    for name, value in fixed.weights.items():  # the map is applied to other batches of states: round-off
        torch.testing.assert_close(frozen.weights[name], value, rtol=1e-4, atol=1e-5)
    assert trained.record["budget"]["auxiliary_parameters"] == 2 * 24 * 16
    assert any(not torch.equal(value, trained.weights[name]) for name, value in frozen.weights.items())


def test_another_seed_gives_others(world, tmp_path):
    other = world.run("semalign_joint", "llama", "seed=1", outputs=tmp_path)
    expected = world.shared("semalign_joint", "llama").weights
    assert any(not torch.equal(value, expected[name]) for name, value in other.weights.items())
