"""`pkt report runs=a,b ...`: from words to a report on the console and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pkt import console
from pkt.config import ReportConfig
from pkt.errors import RequestError
from pkt.reporting.page.write import STEM, write_report


def report(cfg: DictConfig) -> None:
    """Write the report that is asked for, print its tables, and say where it is.

    Args:
        cfg: the composed request, typed by `pkt.config.ReportConfig`.

    Raises:
        RequestError: `runs` is not set, names no folder with scores, or `against` no arm.
        OmegaConfBaseException: a key that `+key=` forced in.
    """
    typed: Any = OmegaConf.merge(
        OmegaConf.structured(ReportConfig), OmegaConf.create(OmegaConf.to_container(cfg))
    )
    if OmegaConf.is_missing(typed, "runs") or not typed.runs:
        raise RequestError("not set: runs; add runs=<folder>[,<folder>...], folders that `pkt run` has left")
    names = [typed.runs] if isinstance(typed.runs, str) else list(typed.runs)
    folders = [Path(str(name)).expanduser() for name in names]
    beside = folders[0] if len(folders) == 1 else Path(STEM)
    out = beside if typed.out is None else Path(typed.out).expanduser()
    found, files = write_report(folders, out=out, against=typed.against, pairs=typed.pairs)
    for section in found.sections:
        console.table(f"{section.title}: {section.table.title}", section.table.columns, section.table.rows)
    for file in files:
        console.say(f"{'report':<11}{file}")
