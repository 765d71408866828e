"""A sweep's own W&B run: the leaderboard, the arms' numbers and the pictures, in the group of its jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pkt.config import TrackerConfig
from pkt.table import Table
from pkt.tracking.base import Tracker

log = logging.getLogger(__name__)


def log_sweep(folder: Path, tables: Sequence[Table], numbers: Mapping[str, float] | None = None) -> None:
    """Leave a run of job type `sweep` beside the W&B runs of a sweep's jobs; nothing where those have none.

    Pictures and pages that lie in the sweep's folder go along. Like every run it never raises for W&B's sake.

    Args:
        folder: the sweep's, with a folder per job.
        tables: the first is the leaderboard.
        numbers: the arms' final numbers, by name.
    """
    read = _settings(folder)
    if read is None:
        return
    settings, request = read
    from pkt.tracking.wandb_run import WandbSink

    sink = WandbSink(
        settings,
        folder,
        run_id=f"sweep-{folder.name}"[:64],
        name=f"sweep {folder.name}",
        group=settings.group or folder.name,
        job_type="sweep",
        tags=list(settings.tags),
    )
    run = Tracker([sink])
    run.config({"jobs": len(list(folder.glob("*/config.yaml"))), "verb": request.get("verb")})
    for number, table in enumerate(tables, start=1):
        name = "sweep/leaderboard" if number == 1 else f"sweep/table_{number}"
        run.table(name, table.columns, table.rows)
    run.config({"titles": [table.title for table in tables]})
    run.summary({f"sweep/{name}": value for name, value in (numbers or {}).items()})
    for picture in sorted(folder.glob("*.png")):
        run.figure(f"sweep/{picture.stem}", picture)
    for page in sorted(folder.glob("*.html")):
        run.page(f"sweep/{page.stem}", page)
    run.close()


def _settings(folder: Path) -> tuple[TrackerConfig, Mapping[str, Any]] | None:
    """Return the tracker's settings of the sweep's first job and its request; None where W&B is not asked for."""
    for file in sorted(folder.glob("*/config.yaml")):
        try:
            request = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
            assert isinstance(request, dict)
            settings = OmegaConf.to_object(
                OmegaConf.merge(OmegaConf.structured(TrackerConfig), request["tracker"])
            )
            assert isinstance(settings, TrackerConfig)
        except (OSError, OmegaConfBaseException, KeyError) as error:
            log.warning("%s cannot be read (%s): the sweep has no run of its own in W&B", file, error)
            return None
        on = settings.name == "wandb" and settings.mode != "disabled"
        return (settings, {str(key): value for key, value in request.items()}) if on else None
    return None
