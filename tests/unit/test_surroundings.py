"""Seeds, devices, cost and provenance."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pkt.config import Config
from pkt.errors import RequestError
from pkt.processes import REFUSED
from pkt.surroundings import (
    Stopwatch,
    checkout_commit,
    command_line,
    prepare,
    provenance,
    resolve_device,
    seed_rows,
)


def draws(seed: int) -> tuple[float, float, float]:
    seed_rows(seed)
    prepare(Config(seed=seed, device="cpu"))
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_same_seed_same_draws():
    first = draws(2**40 + 1)
    assert draws(2**40 + 1) == first
    assert all(one != other for one, other in zip(draws(2), first, strict=True))


def test_prepare_sets_threads_and_device():
    before = torch.get_num_threads()
    try:
        assert prepare(Config(verb="run", output_dir="x", device="cpu", threads=1)).type == "cpu"
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_device_is_refused():
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(RequestError, match="device=cuda: torch sees 0 CUDA devices"):
        resolve_device("cuda")
    with pytest.raises(RequestError, match="device=cuda:3"):
        resolve_device("cuda:3")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without Metal")
def test_missing_metal_is_refused():
    with pytest.raises(RequestError, match="no Metal"):
        resolve_device("mps")


def test_stopwatch_measures_time_and_memory():
    watch = Stopwatch.start(None)
    before = watch.stop()["peak_mb"]
    block = torch.ones(32, 2**20)  # 128 MB
    time.sleep(0.02)
    cost = watch.stop()
    del block
    assert cost["seconds"] >= 0.02
    assert cost["peak_mb"] >= before
    assert cost["peak_mb"] > 100
    assert set(cost) == {"seconds", "peak_mb"}


def test_provenance_is_plain_data():
    facts = json.loads(json.dumps(provenance()))
    assert facts["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert {"pkt", "git", "python", "platform", "started", "threads"} <= set(facts)


def test_command_line_outside_hydra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.initialized", lambda: False)
    monkeypatch.setattr("sys.argv", ["x", "run", "a=b c"])
    assert command_line() == "pkt run 'a=b c'"


def test_a_commit_is_marked_where_code_is_changed_and_not_where_results_are(tmp_path: Path):
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert checkout_commit(tmp_path) is None
    for name in ("src", "conf", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = checkout_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "docs" / "file").write_text("2")
    assert checkout_commit(tmp_path) == clean
    (tmp_path / "conf" / "file").write_text("2")
    assert checkout_commit(tmp_path) == clean + "+"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *(({name: "true"}, (engine, "fsdp_version 2")) for name, engine in REFUSED.items()),
        ({"ACCELERATE_USE_FSDP": "true"}, ("FSDP 1", "--fsdp_version 2")),
        (
            {"ACCELERATE_USE_FSDP": "1", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"},
            ("fsdp_offload_params", "optim.checkpointing=true"),
        ),
    ],
)
def test_a_way_of_sharing_out_models_that_pkt_does_not_run_is_refused(pkt, monkeypatch, settings, told):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    result = pkt("transfer", "method=sft", "tracker=none")
    assert result.code == 2
    assert all(word in result.err for word in told)
    assert not pkt.outputs.exists()
