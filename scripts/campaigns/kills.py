"""Kill `pkt run` at random moments: the same command, given again, has to end in the same result.

Each trial starts the command in a process of its own, sends SIGKILL after a random time, and gives the command again.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from random import Random

import torch

from campaigns import tiny_work
from campaigns.tiny_work import digest, empty, in_child
from campaigns.trials import Trial, Verdict
from pkt.inventory import damages

KILLS = 100


def trials(count: int | None, seed: int) -> Iterable[Trial]:
    """Yield a trial for each kill.

    Args:
        count: of kills; None: `KILLS`.
        seed: of the moments.
    """
    torch.set_num_threads(1)
    root, draw = Path(tempfile.mkdtemp(prefix="pkt-kills-")), Random(seed)
    tiny_work.pair(root)
    golden, seconds = _golden(root)
    for number in range(count or KILLS):
        after = draw.uniform(0, seconds)
        yield Trial(
            name=f"{number}: killed after {after:.3f} s", attempt=partial(attempt, root, after, golden)
        )


def _golden(root: Path) -> tuple[str, float]:
    """Return the digest that a run leaves which nobody kills, and the seconds that it takes."""
    for _ in range(2):  # the first one also pays for imports
        empty(root / "outputs")
        started = time.monotonic()
        child = in_child(partial(tiny_work.command, "run", root), root / "said")
        assert child.code == 0, child.said
    return digest(root / "outputs"), time.monotonic() - started


def attempt(root: Path, after: float, golden: str) -> tuple[Verdict, str]:
    """Kill a run after some seconds, and give the command again."""
    work = partial(tiny_work.command, "run", root)
    outputs = empty(root / "outputs")
    first = in_child(work, root / "said", kill_after=after)
    if first.code not in (0, -signal.SIGKILL):
        return Verdict.TRACEBACK, first.said
    again = in_child(work, root / "said")
    if again.code:
        return Verdict.LOST, f"the same command fails afterwards: {again.said}"
    if digest(outputs) != golden:
        return Verdict.WRONG, f"another result afterwards: {again.said}"
    if found := list(damages(outputs / "store", [outputs / "runs"])):
        return Verdict.WRONG, f"left damaged: {found}"
    return Verdict.WORKS, "killed" if first.code else "it had ended before"
