"""The loop: accumulation, resume, schedule, non-finite guard, keeping the best."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pkt import interrupts
from pkt.config import OptimConfig
from pkt.data.batching import Batch
from pkt.errors import PktError
from pkt.training.loop import Trainer
from pkt.training.schedule import schedule

# float64, so that AdamW makes no step of a gradient that is nothing but rounding
F64 = torch.float64
X = torch.randn(24, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(24, dtype=F64, generator=torch.Generator().manual_seed(1))


class Quadratic:
    """Squared error of a linear model, with one position per row."""

    def __init__(self, weight: nn.Parameter, poison_at: int | None = None) -> None:
        self.weight, self.poison_at, self.calls = weight, poison_at, 0

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"loss_output": len(batch.index)}

    def weights(self, values: dict[str, float]) -> dict[str, float]:
        return {"loss_output": 1.0}

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.calls += 1
        loss = (X[batch.index] @ self.weight - Y[batch.index]).square().sum()
        return {"loss_output": loss * math.nan if self.calls == self.poison_at else loss}


def collate(rows: list[int]) -> Batch:
    ones = torch.ones(len(rows), 1, dtype=torch.long)
    return Batch(input_ids=ones, attention_mask=ones, supervised=ones.bool(), index=list(rows))


def plan(epoch: int) -> list[list[int]]:
    order = torch.randperm(24, generator=torch.Generator().manual_seed(epoch)).tolist()
    return [order[i : i + 8] for i in range(0, 24, 8)]


def trainer(weight: nn.Parameter, tmp=None, poison_at=None, validate=None, **optim) -> Trainer:
    settings = OptimConfig(**{"lr": 0.05, "epochs": 4, "batch_size": 8, "save_every": 0.0, **optim})
    return Trainer(
        loss=Quadratic(weight, poison_at),
        parameters={"weight": weight},
        plan=[plan(epoch) for epoch in range(settings.epochs)],
        collate=collate,
        optim=settings,
        validate=validate,
        snapshots=tmp,
    )


def fitted(**kwargs) -> torch.Tensor:
    weight = nn.Parameter(torch.zeros(5, dtype=F64))
    trainer(weight, **kwargs).fit()
    return weight.detach().clone()


def test_matches_a_textbook_adamw_loop():
    weight = nn.Parameter(torch.zeros(5, dtype=F64))
    optimiser = torch.optim.AdamW([weight], lr=0.05, weight_decay=0.0)
    optim = OptimConfig(lr=0.05, epochs=4, batch_size=8, max_grad_norm=0.0)
    step = 0
    for epoch in range(4):
        for rows in plan(epoch):
            step += 1
            optimiser.param_groups[0]["lr"] = 0.05 * schedule(step, 12, optim)
            optimiser.zero_grad()
            (X[rows] @ weight - Y[rows]).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(fitted(max_grad_norm=0.0), weight.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("micro", [1, 3, 8])
def test_micro_batches_change_memory_and_not_the_gradient(micro):
    torch.testing.assert_close(fitted(micro_batch_size=micro), fitted(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_resume_ends_with_the_same_bits(tmp_path, stop_at):
    class StopError(Exception):
        pass

    def validate() -> dict[str, float]:
        return {"cross_entropy": float(weight.detach().square().sum())}

    weight = nn.Parameter(torch.zeros(5, dtype=F64))
    first = trainer(weight, tmp=tmp_path, validate=validate, keep="best")

    def kill(step: int, _metrics: dict[str, float]) -> None:
        if step > stop_at:
            raise StopError

    first.listen = kill
    with pytest.raises(StopError):
        first.fit()
    weight = nn.Parameter(torch.zeros(5, dtype=F64))
    history = trainer(weight, tmp=tmp_path, validate=validate, keep="best").fit()
    resumed = weight.detach().clone()
    weight = nn.Parameter(torch.zeros(5, dtype=F64))
    uninterrupted = trainer(weight, validate=validate, keep="best").fit()
    assert torch.equal(resumed, weight.detach())
    assert history == uninterrupted


def stopped_at(step: int, number: signal.Signals, folder: Path) -> None:
    """Train, with a signal to stop at a step; an exception of the training is the caller's."""

    def listen(done: int, _: dict[str, float]) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    training = trainer(nn.Parameter(torch.zeros(5, dtype=F64)), tmp=folder, save_every=600.0)
    training.listen = listen
    training.fit()


def test_ctrl_c_leaves_a_snapshot_of_the_step_and_the_rest_has_the_same_bits(tmp_path, capfd):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match="behind optimiser step 5 of 12"):
            stopped_at(5, signal.SIGINT, tmp_path)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert torch.equal(fitted(tmp=tmp_path), fitted())
    assert capfd.readouterr().err == "pkt: training goes on behind optimiser step 5 of 12\n"


def _interrupted_twice(done: list[str]) -> None:
    with interrupts.postponed(True, print) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == [signal.SIGINT]
        done.append("once")
        os.kill(os.getpid(), signal.SIGINT)
        done.append("twice")


@pytest.mark.parametrize("seed", [2**63 - 1, 1_764_320_000_000_000_000])
def test_any_seed_that_a_request_may_have_can_be_trained_with(seed, tmp_path):
    training = trainer(nn.Parameter(torch.zeros(5, dtype=F64)), tmp=tmp_path)
    training.seed = seed
    training.fit()


def test_a_second_ctrl_c_stops_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = []
        with pytest.raises(KeyboardInterrupt):
            _interrupted_twice(done)
        assert done == ["once"]
        with pytest.raises(KeyboardInterrupt), interrupts.postponed(False, print):
            os.kill(os.getpid(), signal.SIGINT)
        with interrupts.postponed(True, print) as stop:
            stop.obey("nothing was asked")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stop_behind_the_last_look_is_not_lost():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.postponed(True, print):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_of_somebody_else_stays(number):
    heard: list[int] = []
    before = signal.signal(number, lambda found, _: heard.append(found))
    try:
        with interrupts.postponed(True, print) as stop:
            os.kill(os.getpid(), number)
            assert (heard, stop.asked) == ([number], [])
    finally:
        signal.signal(number, before)


def test_a_stop_ends_a_process_that_its_own_signal_does_not_end(monkeypatch):
    """The first process of a container, whose SIGTERM Linux drops where it has no handler."""
    monkeypatch.setattr(os, "kill", lambda *_: None)
    before, told = signal.getsignal(signal.SIGTERM), []
    try:
        with pytest.raises(SystemExit) as ended:
            interrupts.Stop(tell=told.append, asked=[signal.SIGTERM]).obey("anywhere")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert told == ["stopped anywhere; the same command resumes"]


def test_sigterm_leaves_a_snapshot_and_ends_by_the_signal(tmp_path):
    script = (
        "import pathlib, signal, sys; from test_training_loop import stopped_at; "
        "stopped_at(7, signal.SIGTERM, pathlib.Path(sys.argv[1]))"
    )
    here = Path(__file__).parent
    words = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, cwd=here, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert "pkt: stopped behind optimiser step 7 of 12; the same command resumes" in done.stderr
    steps: list[int] = []
    again = trainer(nn.Parameter(torch.zeros(5, dtype=F64)), tmp=tmp_path)
    again.listen = lambda step, _: steps.append(step)
    again.fit()
    assert steps == [8, 9, 10, 11, 12]


def test_keep_best_restores_the_weights_of_the_best_validation():
    seen: list[torch.Tensor] = []
    scores = iter([3.0, 1.0, 2.0, 5.0])

    def validate() -> dict[str, float]:
        seen.append(weight.detach().clone())
        return {"cross_entropy": next(scores)}

    weight = nn.Parameter(torch.zeros(5, dtype=F64))
    history = trainer(weight, validate=validate, keep="best").fit()
    assert history.best_step == 6
    assert torch.equal(weight.detach(), seen[1])


def test_non_finite_loss_stops_with_the_step(tmp_path):
    weight = nn.Parameter(torch.zeros(5, dtype=F64))
    with pytest.raises(PktError, match=r"loss_output became nan at optimiser step 5"):
        trainer(weight, tmp=tmp_path, poison_at=5).fit()
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_schedule_warms_up_and_never_stands_still(name):
    optim = OptimConfig(warmup=0.1, schedule=name)
    shares = [schedule(step, 50, optim) for step in range(1, 51)]
    assert shares[0] == pytest.approx(0.2)
    assert max(shares) == pytest.approx(1.0)
    assert min(shares) > 0
    assert name == "constant" or shares[-1] < 0.05


def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="allowed are cosine, linear and constant"):
        schedule(30, 50, OptimConfig(schedule="step"))
