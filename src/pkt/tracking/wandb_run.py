"""W&B, offline unless asked otherwise. Whatever goes wrong with it is one warning; the run goes on.

Steps: every stage counts its own (`<stage>/step` is the axis of `<stage>/*`), because W&B drops a step that
goes back. One W&B run per pkt run; the jobs of a sweep share a group.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pkt.config import TrackerConfig
from pkt.tracking.jsonl import plain

log = logging.getLogger(__name__)


class WandbTracker:
    """One W&B run; silent after its first failure."""

    def __init__(
        self, settings: TrackerConfig, run_dir: Path, *, name: str, group: str, job_type: str
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no network unless asked for
        os.environ.setdefault("WANDB_SILENT", "true")
        self._run: Any = None
        self._wandb: Any = None
        self._stages: set[str] = set()
        try:
            import wandb

            run_dir.mkdir(parents=True, exist_ok=True)  # W&B falls back to the system's temp folder otherwise
            self._wandb = wandb
            self._run = wandb.init(
                project=settings.project,
                name=name,
                group=group,
                job_type=job_type,
                mode=cast(Literal["offline", "online"], settings.mode),
                tags=list(settings.tags),
                dir=str(run_dir),
                reinit="finish_previous",
                # fresh settings each time: init writes into them, and the group would leak into the next run
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    x_disable_stats=True,
                    x_disable_meta=True,
                    disable_git=True,
                    disable_code=True,
                ),
            )
        except Exception as error:
            self._give_up(error)

    def config(self, values: Mapping[str, Any]) -> None:
        """Take the resolved request."""
        self._tell(lambda run: run.config.update(plain(values), allow_val_change=True))

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Take metrics of one step."""

        def send(run: Any) -> None:
            if stage not in self._stages:
                self._stages.add(stage)
                run.define_metric(f"{stage}/step", hidden=True)
                run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in metrics.items()})

        self._tell(send)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Take a table; cells are text where a column mixes types."""
        cells = [list(plain(row)) for row in rows]
        for index in range(len(columns)):
            if len({type(row[index]) for row in cells}) > 1:
                for row in cells:
                    row[index] = str(row[index])
        self._tell(lambda run: run.log({name: self._wandb.Table(columns=list(columns), data=cells)}))

    def figure(self, name: str, path: Path) -> None:
        """Take a picture file."""
        self._tell(lambda run: run.log({name: self._wandb.Image(str(path))}))

    def summary(self, values: Mapping[str, float]) -> None:
        """Take the run's final numbers."""
        self._tell(lambda run: run.summary.update(plain(values)))

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Take a file or a folder."""

        def send(run: Any) -> None:
            artifact = self._wandb.Artifact(f"{name}-{run.id}", type=kind)
            (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
            run.log_artifact(artifact)

        self._tell(send)

    def close(self) -> None:
        """Finish the run."""
        self._tell(lambda run: run.finish())
        self._run = None

    def _tell(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = next(iter(str(error).splitlines()), "")
        log.warning(
            "W&B is off for this run (%s: %s); metrics.jsonl has every number; tracker=none silences this",
            type(error).__name__,
            reason,
        )
