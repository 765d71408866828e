"""What a reader of a figure wants to know of the machine that it was measured on."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from pkt.surroundings import provenance

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ("src/pkt", "scripts/benches", "tests/textbook")
ABOUT = ("machine.py", "page.py")  # of the files there: they only tell what was measured


def code() -> str:
    """Return 16 hex digits that identify the code of both ways, so that an older result is not taken for this one's."""
    digest = hashlib.sha256()
    for folder in MEASURED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name not in ABOUT:
                digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def machine(threads: int, device: str) -> dict[str, str]:
    """Return processor, memory, software and threads, as text by name; the GPU where the work is on one."""
    about = provenance()
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "instructions that torch uses": torch.backends.cpu.get_cpu_capability(),
        "memory": f"{_memory():.0f} GB",
        **({"GPU": _gpu()} if device != "cpu" else {}),
        "system": about["platform"],
        "Python": about["python"],
        **{name: version for name, version in about["packages"].items() if version},
        "threads": str(threads),
        "pkt": f"{about['pkt']} ({about['git'] or 'no checkout'})",
    }


def _gpu() -> str:
    card = torch.cuda.get_device_properties(0)
    return f"{card.name}, {card.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}"


def _processor() -> str:
    return next(_values("/proc/cpuinfo", "model name"), platform.processor() or platform.machine())


def _memory() -> float:
    return float(next(_values("/proc/meminfo", "MemTotal"), "0 kB").split()[0]) / 2**20


def _values(file: str, name: str) -> Iterator[str]:
    """Yield the values of lines `name: value`."""
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            yield value.strip()
