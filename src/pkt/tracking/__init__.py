"""Where a run's numbers go: always `metrics.jsonl` in its folder, and W&B beside it."""

from pkt.tracking.base import TrackedArtifact, Tracker
from pkt.tracking.jsonl import JsonlSink
from pkt.tracking.open import open_tracker
from pkt.tracking.sweep_run import log_sweep

__all__ = ["JsonlSink", "TrackedArtifact", "Tracker", "log_sweep", "open_tracker"]
