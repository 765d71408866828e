"""The same request twice, and a request that was stopped and asked for again: the same bits, the same record."""

from __future__ import annotations

import pytest
import torch
from matrix import METHODS, TRAINED
from world import SAVING, Stop, StoppedError

FAMILY = dict(zip(METHODS, ["llama", "qwen3", "gemma3_text", "gpt2"] * 3, strict=False)) | {"laten": "qwen3"}
# the frontier takes its last two steps in its second stage, whose layer these states enter
BETWEEN = {"semalign_fisher": "states entering layer 3 (train)", "semalign_geometry": "layer 3 (validation)"}
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


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_gives_the_same_bits(world, tmp_path, method):
    expected = world.shared(method, FAMILY[method])
    same(world.run(method, FAMILY[method], outputs=tmp_path), expected)
    assert len(expected.steps) == METHODS[method].steps


@pytest.mark.parametrize(("method", "stop"), STOPS, ids=[f"{m}-{s.what or s.step}" for m, s in STOPS])
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


def test_another_seed_gives_others(world, tmp_path):
    other = world.run("semalign_joint", "llama", "seed=1", outputs=tmp_path)
    expected = world.shared("semalign_joint", "llama").weights
    assert any(not torch.equal(value, expected[name]) for name, value in other.weights.items())
