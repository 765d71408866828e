"""How far work is: lines where nobody looks at a terminal, a bar where somebody does, and numbers that are right."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from pkt import progress
from pkt.progress import EVERY, SOON, Measured, _clock


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(progress.time, "monotonic", own)
    monkeypatch.setattr(
        Measured.__init__, "__kwdefaults__", Measured.__init__.__kwdefaults__ | {"clock": own}
    )
    return own


def lines(
    clock: Clock, capfd, steps: int, seconds: float, shown=lambda step: None, total: int = 100
) -> list[str]:
    with progress.progress("transfer", total) as advance:
        for step in range(1, steps + 1):
            clock.now += seconds
            advance(1, shown=shown(step))
    return capfd.readouterr().err.splitlines()


def test_work_that_is_done_soon_says_nothing(clock, capfd):
    assert lines(clock, capfd, steps=100, seconds=0.9 * EVERY / 100) == []


def test_a_line_every_half_minute_says_what_is_known(clock, capfd):
    told = lines(
        clock, capfd, steps=70, seconds=1.0,
        shown=lambda step: {"loss": 2.0, "loss_kl": 0.5, "lr": 1e-3, "grad_norm": 9.0, "tokens": 100.0 * step},
    )  # fmt: skip
    assert told == [
        "transfer: 30 of 100, loss 2, kl 0.5, 100 tokens/s, 70 s left",
        "transfer: 60 of 100, loss 2, kl 0.5, 100 tokens/s, 40 s left",
    ]


def test_a_validation_is_told_when_it_comes(clock, capfd):
    def shown(step: int) -> dict[str, float]:
        return {"loss": 1.0} | ({"validation/cross_entropy": 0.25} if step in (2, 12, 13) else {})

    told = lines(clock, capfd, steps=15, seconds=1.0, shown=shown)
    assert told == ["transfer: 12 of 100, loss 1, validation: cross_entropy 0.25, 88 s left"]
    assert SOON == 10


def test_the_last_line_has_no_time_left(clock, capfd):
    assert lines(clock, capfd, steps=2, seconds=40.0, total=2) == [
        "transfer: 1 of 2, 40 s left",
        "transfer: 2 of 2",
    ]


def test_times_are_said_as_people_do():
    assert [_clock(seconds) for seconds in (5, 89, 120, 5000, 7200)] == [
        "5 s",
        "89 s",
        "2 min",
        "83 min",
        "2.0 h",
    ]


def test_a_terminal_gets_a_bar():
    code = (
        "from pkt.progress import progress\n"
        "with progress('train [steps]', 4) as advance:\n"
        "    for _ in range(3): advance(1, shown={'loss': 1.25})\n"
        "    import time; time.sleep(0.3)\n"
    )
    main, side = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", code], stderr=side, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    )
    done.wait()
    os.close(side)
    shown = b""
    while True:
        try:
            shown += os.read(main, 65536)
        except OSError:
            break
        if not shown or len(shown) > 10**6:
            break
    os.close(main)
    text = shown.decode(errors="replace")
    assert "train [steps]" in text
    assert "3/4" in text
    assert "loss 1.25" in text


def test_evaluation_and_training_are_tracked(pkt, tiny_request, monkeypatch):
    """Every stage that takes long says how far it is: no line of a log for an hour is a fault."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "SOON", 0.0)
    done = pkt("run", *tiny_request, "method=semalign_joint")
    assert done.code == 0, done.err
    for what in ("transfer: 4 of 4", "teacher (train): ", "eval teacher, answers to "):
        assert what in done.err
    assert "tokens/s" in done.err
