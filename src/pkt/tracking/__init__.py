"""Where a run's numbers go: always `metrics.jsonl` in its folder, and W&B beside it."""

from pkt.tracking.base import TrackedArtifact, Tracker, Trackers
from pkt.tracking.jsonl import JsonlTracker
from pkt.tracking.open import open_tracker
from pkt.tracking.sweep_run import log_sweep

__all__ = ["JsonlTracker", "TrackedArtifact", "Tracker", "Trackers", "log_sweep", "open_tracker"]
