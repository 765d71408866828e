"""Seconds of both ways, one after the other in one process, and the peak memory of each in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benches.case import Case, Work, difference
from benches.shape import TINY, Shape
from pkt.errors import PktError

SCRIPT = Path(__file__).resolve().parents[1] / "bench.py"
WAYS = ("ours", "textbook")
# glibc keeps what was freed by rules that learn as a process runs; so it is told to give all back
GIVES_BACK = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
MB = 2**20


def clock(threads: int, device: str) -> Callable[[], float]:
    """Return what seconds are read from.

    This process's on the processor; the wall's for several threads; the wall's when a GPU has done what it was given.
    """
    if device != "cpu":
        return _when_done
    return time.process_time if threads == 1 else time.perf_counter


def _when_done() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def alternating(ours: Work, textbook: Work, repeats: int, now: Callable[[], float]) -> dict[str, list[float]]:
    """Return the seconds of each way, taken in turns, so that both meet the same load."""
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, work in zip(WAYS, (ours, textbook), strict=True):
            start = now()
            work()
            taken[way].append(now() - start)
    return taken


def timed(case: Case, shape: Shape, repeats: int, threads: int) -> dict[str, Any]:
    """Compare the numbers of both ways, and then their seconds.

    Raises:
        PktError: the numbers differ by more than the case says.
    """
    ours, textbook = case.ours(shape), case.textbook(shape)
    apart = difference(ours(), textbook())  # the first call of each, which also warms up
    if apart > case.error:
        raise PktError(f"{case.name}: pkt and the textbook differ by {apart:.3g}, allowed are {case.error:g}")
    before = os.getloadavg()[0]
    seconds = alternating(ours, textbook, repeats, clock(threads, shape.device))
    return {
        "difference": apart,
        "allowed": case.error,
        "seconds": seconds,
        "ratio": ratio(seconds),
        "load": [round(load, 2) for load in (before, os.getloadavg()[0])],
    }


def ratio(seconds: Mapping[str, list[float]]) -> float:
    """Return the textbook's median over pkt's."""
    return statistics.median(seconds["textbook"]) / max(statistics.median(seconds["ours"]), 1e-9)


def peaks(case: Case, shape: Shape, threads: int) -> dict[str, float]:
    """Return the megabytes of each way, in a fresh process each."""
    if shape.device != "cpu":
        torch.cuda.empty_cache()  # this process's turns are over
    environment = os.environ | GIVES_BACK | {"OMP_NUM_THREADS": str(threads)}
    found = {}
    for way in WAYS:
        command = [sys.executable, str(SCRIPT), "--peak", case.name, way, json.dumps(asdict(shape))]
        done = subprocess.run(
            [*command, "--threads", str(threads)], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PktError(f"{case.name}: the process that measures the memory of {way} failed: {last}")
        found[way] = float(json.loads(done.stdout.splitlines()[-1])["mb"])
    return found


def peak(case: Case, way: str, shape: Shape) -> float:
    """Return how far one call grows this process: its peak over what it holds with everything imported and used once.

    Models and inputs count; what the preparation needed and gave back does not. Linux only: resident memory is read
    from /proc, and its high-water mark is set back before the call. On a GPU it is what torch allocates there.
    """
    prepare = case.ours if way == "ours" else case.textbook
    prepare(replace(TINY, device=shape.device))()  # what torch allocates at first use
    gc.collect()
    if shape.device != "cpu":
        return _peak_on_gpu(prepare, shape)
    before = resident("VmRSS")
    work = prepare(shape)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    work()
    return (resident("VmHWM") - before) / MB


def _peak_on_gpu(prepare: Callable[[Shape], Work], shape: Shape) -> float:
    before = torch.cuda.memory_allocated()
    work = prepare(shape)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    work()
    return (torch.cuda.max_memory_allocated() - before) / MB


def resident(name: str) -> int:
    """Return a size of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
