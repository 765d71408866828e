"""Processes that share out the student's layers (FSDP2) leave what one leaves, and go on with what others began."""

from __future__ import annotations

import contextlib
import os

import pytest
import torch
from accelerate import debug_launcher
from matrix import STUDENT
from test_capture import CACHED
from test_processes import alike, left, one
from world import Stop

from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.processes import Processes, connect
from pkt.training.sharding import own_part, sharded
from tiny import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")]
FULL = "method.update.kind=full"
WITHIN = 1e-5  # gradients are added up in another order, and AdamW makes a step of one that is nothing but rounding
TAUGHT = (
    ("sft", "llama", (FULL,)),
    ("sft", "gemma3_text", (FULL, "optim.batch_size=3", "optim.micro_batch_size=1")),
    ("kd", "qwen3", (CACHED, FULL, "optim.checkpointing=true")),
    ("hidden_kd", "llama", ("optim.micro_batch_size=1", "optim.batch_size=3")),
    ("semalign", "llama", ("method.update.dropout=0",)),
    ("semalign_joint", "qwen3", ("semantics=ridge_trained", "optim.epochs=2", FULL)),
    ("semalign_joint", "llama", ("semantics.refit=epochs", "optim.epochs=2", "optim.keep=best", FULL)),
    ("semalign_joint", "llama", ("optim.batch_size=7", "capture.mode=window")),
    ("semalign_joint", "llama", ("optim.micro_batch_size=1", "optim.batch_size=3", "objective.balance=auto")),
    ("semalign_fisher", "llama", ("method.update.dropout=0", "optim.epochs=4")),
    ("semalign_geometry", "gpt2", ("method.update.dropout=0", "objective.balance=none")),
    ("pissa", "llama", ("method.update.dropout=0",)),
    ("seqkd", "llama", ()),
    ("seeking", "llama", ("method.update.dropout=0",)),
    ("laten", "llama", ()),
)


@pytest.fixture(autouse=True)
def configured(monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")  # accelerate's default


def two(world, outputs, method, family, more, stop=None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_FSDP", "true")
        debug_launcher(one, (world, outputs, method, family, more, stop), num_processes=2)


@pytest.mark.parametrize(("method", "family", "more"), TAUGHT)
def test_processes_that_share_weights_leave_what_one_leaves(world, tmp_path, method, family, more):
    one(world, tmp_path / "one", method, family, more)
    two(world, tmp_path / "two", method, family, more)
    alike(left(tmp_path / "two"), left(tmp_path / "one"), WITHIN)


@pytest.mark.parametrize("first", [1, 2])
def test_what_some_began_others_finish(world, tmp_path, first):
    case = ("semalign_joint", "llama", (FULL, "semantics=ridge_trained", "optim.keep=best"))
    one(world, tmp_path / "whole", *case)
    with contextlib.suppress(Exception):  # the stop, or what the launcher makes of it
        (one if first == 1 else two)(world, tmp_path / "cut", *case, stop=Stop(step=2))
    assert list((tmp_path / "cut" / "store" / "transfer").glob("*.partial"))
    (two if first == 1 else one)(world, tmp_path / "cut", *case)
    alike(left(tmp_path / "cut"), left(tmp_path / "whole"), WITHIN)


def apart(before: dict[str, torch.Tensor]) -> None:
    """Of each process: half of the layers' weights meanwhile, all of them again after."""
    processes = connect(lambda: torch.device("cpu"))
    arch = Architecture.of(tiny_model("llama", **STUDENT))
    trained = {name: p for name, p in arch.model.named_parameters() if ".layers.1." in name}
    layers = list(arch.layers)
    with sharded(arch, trained, processes) as shards:
        assert shards.parameters.keys() == trained.keys()
        assert all(not parameter.numel() for layer in layers for parameter in layer.parameters())
        own = sum(own_part(p).numel() for layer in shards.layers for p in layer.parameters())
        assert own == sum(value.numel() for name, value in before.items() if ".layers." in name) // 2
        with torch.no_grad():
            for parameter in shards.parameters.values():
                parameter += 1.0
    assert list(arch.layers) == layers
    for name, value in arch.model.state_dict().items():
        assert torch.equal(value, before[name] + 1.0 if name in trained else before[name]), name


def test_a_process_has_its_part_of_the_layers_and_gets_all_of_them_back(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    debug_launcher(apart, (tiny_model("llama", **STUDENT).state_dict(),), num_processes=2)


def test_layers_that_share_weights_are_refused():
    arch = Architecture.of(tiny_model("llama", **STUDENT))
    arch.layers[1].mlp = arch.layers[0].mlp
    processes = Processes(rank=0, count=2, shards=True)
    with pytest.raises(RequestError, match=r"layer 2 of this llama model has weights of another layer.*DDP"):
        sharded(arch, {}, processes).__enter__()
