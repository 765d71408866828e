"""Where a run's numbers go: always `metrics.jsonl` in its folder, and W&B beside it."""

from pkt.tracking.base import Tracker, Trackers
from pkt.tracking.jsonl import JsonlTracker
from pkt.tracking.open import open_tracker

__all__ = ["JsonlTracker", "Tracker", "Trackers", "open_tracker"]
