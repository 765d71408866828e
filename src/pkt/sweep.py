"""The table at the end of a sweep: every job's scores, seeds averaged, methods side by side.

hydra -m ──> on_multirun_start (where the jobs' folders are) ──> jobs ──> cli ──> show_table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pkt import console


class SweepFolder(Callback):  # type: ignore[misc]  # hydra has no types here
    """Remembers where the jobs of the sweep that has begun leave their folders.

    Hydra calls nothing at the end of a sweep in which a job failed, so the end is the command line's to notice.
    """

    started: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Keep the sweep's folder."""
        SweepFolder.started = Path(str(config.hydra.sweep.dir))


def show_table() -> None:
    """Print the table over the jobs of the sweep that has ended, and leave it in the sweep's folder.

    Nothing is shown where there was no sweep, or fewer than two jobs were scored.
    """
    folder, SweepFolder.started = SweepFolder.started, None
    if folder is None or len(list(folder.glob("*/scores.json"))) < 2:
        return
    from pkt.reporting.runs import load_runs
    from pkt.reporting.study import study_tables

    for index, table in enumerate(study_tables(load_runs([folder]))):
        (folder / ("table.md" if index == 0 else f"table_{index + 1}.md")).write_text(
            f"{table.title}\n\n{table.markdown()}\n", encoding="utf-8"
        )
        console.say("")
        console.table(table.title, table.columns, table.rows)
    console.say(f"{'sweep':<11}{folder}")
