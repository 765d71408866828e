"""The end of a sweep: one table over its jobs, seeds averaged, methods side by side, and a report.

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
    """Print the table over the jobs of the sweep that has ended; leave it and a report in the sweep's folder.

    Nothing is shown where there was no sweep, or fewer than two jobs were scored.
    """
    folder, SweepFolder.started = SweepFolder.started, None
    if folder is None or len(list(folder.glob("*/scores.json"))) < 2:
        return
    from pkt.reporting.page import write_report

    report, files = write_report([folder], out=folder)
    for index, section in enumerate(report.sections):
        title = f"{section.title}: {section.table.title}"
        (folder / ("table.md" if index == 0 else f"table_{index + 1}.md")).write_text(
            f"{title}\n\n{section.table.markdown()}\n", encoding="utf-8"
        )
        console.say("")
        console.table(title, section.table.columns, section.table.rows)
    console.say(f"{'sweep':<11}{folder}")
    console.say(f"{'report':<11}{files[0]}")
