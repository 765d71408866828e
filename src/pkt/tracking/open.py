"""Open the tracker of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt.config import Config
from pkt.run_files import METRICS
from pkt.tracking.base import Sink, Tracker
from pkt.tracking.jsonl import JsonlSink
from pkt.tracking.unfinished import ContinuedTracker, Unfinished


def open_tracker(config: Config, run_dir: Path, resolved: Mapping[str, Any]) -> Tracker:
    """Return the run's tracker, after handing it the request.

    Where the same request was killed before, its W&B run is continued (see `unfinished`).

    Args:
        config: the request.
        run_dir: this run's folder; `metrics.jsonl` and `wandb/` go there.
        resolved: the request as plain data.

    Raises:
        PktError: the run folder cannot be written.
    """
    unfinished = Unfinished(Path(config.output_dir), resolved, run_dir)
    sinks: list[Sink] = [JsonlSink(run_dir / METRICS)]
    if config.tracker.name == "wandb" and config.tracker.mode != "disabled":
        from pkt.tracking.wandb_run import WandbSink

        named = _names(resolved, "method", "model", "benchmark")
        sinks.append(
            WandbSink(
                config.tracker,
                run_dir,
                run_id=unfinished.run_id,
                name=_run_name(resolved, run_dir),
                group=config.tracker.group or sweep_name() or run_dir.name,
                job_type=config.verb,
                tags=list(dict.fromkeys([*config.tracker.tags, *named])),
                continues=unfinished.earlier_dir,
            )
        )
    tracker = ContinuedTracker(sinks, unfinished)
    tracker.config(resolved)
    return tracker


def _run_name(resolved: Mapping[str, Any], run_dir: Path) -> str:
    """Return the W&B run's name, such as ``run semalign_joint nano seed 0``; in a sweep with the job's number."""
    words = [str(resolved["verb"]), *_names(resolved, "method", "model"), "seed", str(resolved["seed"])]
    return " ".join([*words, f"#{run_dir.name}"] if sweep_name() else words)


def _names(resolved: Mapping[str, Any], *parts: str) -> list[str]:
    """Return the names of some parts of the request, of those that have one."""
    nodes = (resolved.get(part) for part in parts)
    return [str(node["name"]) for node in nodes if isinstance(node, Mapping) and node.get("name")]


def is_first() -> bool:
    """Return whether this request stands alone, or is the first job of its sweep."""
    from hydra.core.hydra_config import HydraConfig

    return sweep_name() is None or HydraConfig.get().job.num == 0


def sweep_name() -> str | None:
    """Return the name of the sweep's folder, the same for all its jobs; None outside a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name
