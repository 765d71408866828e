"""What this machine, or the one that the request names, has: memory, room on the disk, operations per second."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pkt.config import Config
from pkt.planning.cost import Cost
from pkt.planning.device import on_gpu
from pkt.planning.shapes import Shape

GB = 1e9
SECONDS = 0.3  # of the products that the rate is measured by
TOKENS, WIDEST = 256, 2048  # rows of the products, and the largest side of their matrices
LIBRARIES = (
    0.61 * GB
)  # Python, torch, transformers and what they keep once they have worked, in every process
SLOWEST, FASTEST = 0.25, 0.8  # shares of the measured rate that whole stages come to
CALL = (2e-4, 2e-3)  # seconds that a call of a layer takes beside its products


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a request is to run.

    Attributes:
        gpu: whether models are on GPUs.
        memory: bytes of a device; None: not known.
        host: bytes of the machine's memory that are free.
        disk: bytes that are free for results.
        flops: operations per second of a device, of large products of matrices.
        bandwidth: bytes of weights that a device reads per second.
        told: where the figures come from, for the reader.
    """

    gpu: bool
    memory: float | None
    host: float
    disk: float
    flops: float
    bandwidth: float
    told: str

    def seconds(self, cost: Cost, processes: int) -> tuple[float, float]:
        """Return the least and the largest number of seconds that a stage may take."""
        work, calls, reads = (number / processes for number in (cost.operations, cost.calls, cost.reads))
        return (
            work / (self.flops * FASTEST) + calls * CALL[0] + reads / self.bandwidth,
            work / (self.flops * SLOWEST) + calls * CALL[1] + 2 * reads / self.bandwidth,
        )


def machine_of(config: Config, shape: Shape) -> Machine:
    """Return the machine of a request; what the request does not say is measured here.

    Args:
        config: the request.
        shape: of the model whose products are measured.
    """
    own, gpu = config.plan, on_gpu(config.device)
    host = own.host_gb * GB if own.host_gb is not None else free_memory()
    there = gpu and on_gpu("auto")
    measured = _on_gpu if there else _on_cpu
    flops, bandwidth = (own.flops, own.flops / 100) if own.flops is not None else measured(shape)
    memory = (
        own.memory_gb * GB if own.memory_gb is not None else host if not gpu else _memory() if there else None
    )
    disk = (
        own.disk_gb * GB
        if own.disk_gb is not None
        else free_disk(Path(config.store_dir or config.output_dir))
    )
    how = (
        "plan.flops"
        if own.flops is not None
        else "measured here" + ("" if gpu == there else ", on its processor")
    )
    return Machine(
        gpu=gpu,
        memory=memory,
        host=host,
        disk=disk,
        flops=flops,
        bandwidth=bandwidth,
        told=f"{flops / 1e9:,.0f} GFLOP/s ({how})",
    )


def free_memory() -> float:
    """Return the bytes of memory that this process may still take: what is available, within its control group."""
    page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        page = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, StopIteration, ValueError):
        return float(page)
    return float(page if limit == "max" else min(page, int(limit) - used))


def free_disk(folder: Path) -> float:
    """Return the bytes that are free where a folder is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return float(shutil.disk_usage(there).free)


def _on_cpu(shape: Shape) -> tuple[float, float]:
    """Return operations and bytes per second of products of a model's shape, with as many threads as numpy has."""
    import numpy as np

    inside, outside = min(shape.width, WIDEST), min(shape.mlp, WIDEST)
    states, weights = np.ones((TOKENS, inside), np.float32), np.ones((inside, outside), np.float32)
    one = np.ones((1, inside), np.float32)
    flops = 2 * TOKENS * inside * outside / _least(lambda: states @ weights)
    return flops, weights.nbytes / _least(lambda: one @ weights)


def _on_gpu(shape: Shape) -> tuple[float, float]:
    import torch

    numbers = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    states = torch.ones(16 * TOKENS, shape.width, dtype=numbers, device="cuda")
    weights = torch.ones(shape.width, shape.mlp, dtype=numbers, device="cuda")

    def product(rows: int) -> None:
        states[:rows] @ weights
        torch.cuda.synchronize()

    flops = 2 * len(states) * weights.numel() / _least(lambda: product(len(states)))
    return flops, weights.nbytes / _least(lambda: product(1))


def _memory() -> float:
    import torch

    return float(torch.cuda.mem_get_info()[1])


def _least(work: Callable[[], object]) -> float:
    """Return the least seconds of some calls, the first of which warms up; other work may interrupt the others."""
    work()
    taken: list[float] = []
    while sum(taken) < SECONDS / 2 or len(taken) < 3:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
