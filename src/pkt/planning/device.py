"""Whether a request runs on a GPU, found out without torch."""

from __future__ import annotations

from pathlib import Path


def on_gpu(device: str) -> bool:
    """Return whether a request's models are on a GPU; no driver is asked."""
    if device == "auto":
        return any(Path("/dev").glob("nvidia[0-9]*"))
    return device != "cpu"
