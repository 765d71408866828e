"""A contrastive term that pkt does not have, in a file and a YAML of its own, under every method with states."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file
from world import Stop, StoppedError, composed

STRANGER = Path(__file__).resolve().parents[1] / "info_nce"
NAME = "pkt.objectives.info_nce"
ADD = "+term@objective.terms.nce=info_nce"
BANK = "objective.terms.nce.negatives=bank"


@pytest.fixture(autouse=True)
def _stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the file where pkt finds it, and its YAML on the search path."""
    spec = importlib.util.spec_from_file_location(NAME, STRANGER / "info_nce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, NAME, module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PKT_CONFIG_DIR", str(STRANGER / "conf"))
    GlobalHydra.instance().clear()
    composed.cache_clear()


def equal(run, expected) -> None:
    assert run.weights.keys() == expected.weights.keys()
    assert all(torch.equal(value, expected.weights[name]) for name, value in run.weights.items())
    assert run.record == expected.record


@pytest.mark.parametrize(
    ("method", "words"),
    [
        pytest.param("semalign_joint", [ADD], marks=pytest.mark.slow),
        pytest.param("hidden_kd", [ADD], marks=pytest.mark.slow),
        pytest.param("semalign", [ADD, BANK], marks=pytest.mark.slow),
        ("semalign_joint", [ADD, BANK]),
        pytest.param("semalign_fisher", [ADD, BANK], marks=pytest.mark.slow),
        pytest.param("semalign_geometry", [ADD, BANK], marks=pytest.mark.slow),
        pytest.param("hidden_kd", [ADD, BANK], marks=pytest.mark.slow),
    ],
)
def test_it_runs_resumes_and_is_not_saved_with_the_student(world, tmp_path, method, words):
    whole = world.run(method, "llama", *words, outputs=tmp_path / "whole")
    plain = world.shared(method, "llama")
    assert whole.weights.keys() == plain.weights.keys()
    assert any(not torch.equal(value, plain.weights[name]) for name, value in whole.weights.items())
    auxiliary = "auxiliary_parameters"
    assert whole.record["budget"][auxiliary] > plain.record["budget"][auxiliary]
    losses = [step["loss_nce"] for step in whole.steps if "loss_nce" in step]
    assert losses
    assert all(loss >= 0 for loss in losses)
    with pytest.raises(StoppedError):
        world.run(method, "llama", *words, outputs=tmp_path / "stopped", stop=Stop(step=3))
    equal(world.run(method, "llama", *words, outputs=tmp_path / "stopped"), whole)


def test_the_bank_knows_what_was_trained_on_and_is_in_the_snapshot(world, tmp_path):
    with pytest.raises(StoppedError):
        world.run("semalign_joint", "llama", ADD, BANK, outputs=tmp_path, stop=Stop(step=2))
    (file,) = (tmp_path / "store" / "transfer").rglob("tensors.safetensors")
    known = load_file(file)["buffer:term_nce.1.known_R"]
    assert (len(known), int(known.sum())) == (
        8 + 4,
        4,
    )  # train and validation rows; one step of four was kept
    assert not known[8:].any()  # validation rows are never remembered


@pytest.mark.slow
def test_a_bank_makes_the_loss_of_a_step_independent_of_its_micro_batches(world, tmp_path):
    settings = ("method.update.kind=full", "mapping=depth", ADD, BANK, "optim.lr=1e-20")
    runs = [
        world.run(
            "semalign_joint", "llama", f"optim.micro_batch_size={size}", outputs=tmp_path / str(size),
            settings=settings,
        )
        for size in (4, 1)
    ]  # fmt: skip
    whole, parts = ([step["loss_nce"] for step in run.steps] for run in runs)
    assert whole == pytest.approx(parts, rel=1e-5)
    assert whole[-1] > 0  # the bank was empty only at first
