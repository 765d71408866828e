"""Choose the trackers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pkt.config import Config
from pkt.tracking.base import Tracker, Trackers
from pkt.tracking.jsonl import JsonlTracker

METRICS = "metrics.jsonl"


def open_tracker(config: Config, run_dir: Path, resolved: Any) -> Tracker:
    """Return the run's tracker, with the request already told to it.

    Args:
        config: the request.
        run_dir: this run's folder; `metrics.jsonl` and `wandb/` go there.
        resolved: the request as plain data.

    Raises:
        PktError: the run folder cannot be written.
    """
    members: list[Tracker] = [JsonlTracker(run_dir / METRICS)]
    if config.tracker.name == "wandb" and config.tracker.mode != "disabled":
        from pkt.tracking.wandb_run import WandbTracker

        method = resolved.get("method") or {}
        name = f"{config.verb}-{method.get('name', 'method')}-{run_dir.name}"
        group = config.tracker.group or sweep_name() or run_dir.name
        members.append(WandbTracker(config.tracker, run_dir, name=name, group=group, job_type=config.verb))
    tracker = Trackers(tuple(members))
    tracker.config(resolved)
    return tracker


def sweep_name() -> str | None:
    """Return the name of the sweep's folder, the same for all its jobs; None outside a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name
