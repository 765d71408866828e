"""A W&B run of the sweep itself, in the group of its jobs: leaderboard, numbers of the arms, pictures and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pkt.config import TrackerConfig
from pkt.run_files import REQUEST
from pkt.table import Table
from pkt.tracking.base import Tracker


def log_sweep(folder: Path, tables: Sequence[Table], numbers: Mapping[str, float]) -> None:
    """Log a run of job type `sweep` where the jobs of the sweep log to W&B.

    Pictures and pages in the sweep's folder are logged too. What W&B raises is a warning, as in every run.

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
    run.config({"jobs": len(job_requests(folder)), "verb": request.get("verb")})
    for number, table in enumerate(tables, start=1):
        name = "sweep/leaderboard" if number == 1 else f"sweep/table_{number}"
        run.table(name, table.columns, table.rows)
    run.config({"titles": [table.title for table in tables]})
    run.summary({f"sweep/{name}": value for name, value in numbers.items()})
    for picture in sorted(folder.glob("*.png")):
        run.figure(f"sweep/{picture.stem}", picture)
    for page in sorted(folder.glob("*.html")):
        run.page(f"sweep/{page.stem}", page)
    run.close()


def job_requests(folder: Path) -> list[Path]:
    """Return the requests of the runs below a folder, at any depth; Hydra's and W&B's own files are named alike."""
    files = {file: file.relative_to(folder).parts[:-1] for file in sorted(folder.rglob(REQUEST))}
    return [
        file for file, above in files.items() if not any(part == "wandb" or part[0] == "." for part in above)
    ]


def refused_requests(folder: Path) -> list[Path]:
    """Return the requests below a folder that were refused before their run began: Hydra alone wrote them down."""
    files = sorted(folder.rglob(".hydra/config.yaml"))
    return [file for file in files if not (file.parent.parent / REQUEST).exists()]


def _settings(folder: Path) -> tuple[TrackerConfig, Mapping[str, Any]] | None:
    """Return the tracker's settings of the first job that asks for W&B, and its request; None where none does."""
    for file in job_requests(folder):
        request: Any = OmegaConf.load(file)
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrackerConfig), request.tracker))
        assert isinstance(settings, TrackerConfig)
        if settings.name == "wandb" and settings.mode != "disabled":
            return settings, request
    return None
