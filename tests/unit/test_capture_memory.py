"""Memory of capture and training does not grow with the rows: what is kept lies on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GROWTH = Path(__file__).parents[1] / "growth.py"


def peaks(tmp_path: Path, rows: int) -> dict[str, float]:
    """Megabytes: what is kept, and how far memory that is no mapped file rose while capturing and training."""
    words = [sys.executable, str(GROWTH), str(rows), str(tmp_path / str(rows))]
    found = subprocess.run(words, capture_output=True, text=True, timeout=900, check=True)
    return {name: float(value) for name, value in (line.split() for line in found.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which is Linux's")
def test_eight_times_the_rows_take_no_more_memory(tmp_path):
    few, many = peaks(tmp_path, 1_000), peaks(tmp_path, 8_000)
    assert many["kept"] == pytest.approx(8 * few["kept"], rel=0.02)
    grown = many["kept"] - few["kept"]
    assert grown > 80
    for stage in ("capture", "training"):
        assert many[stage] - few[stage] < 0.2 * grown, (few, many)
