"""Read what `pkt analyze` left in folders of its own, and find out which runs it is about.

folders -> analysis.json, config.yaml (the request) -> the analyses whose request is about the same transfer as a run's
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.durable import read_json
from pkt.errors import RequestError
from pkt.reporting.overrides import read_request
from pkt.reporting.runs import Run
from pkt.run_files import ANALYSIS
from pkt.table import Table

# parts of a request that are not about the transfer: where things lie, what is measured after it, what is shown
_ASIDE = {
    "verb", "device", "threads", "output_dir", "store_dir", "refresh", "capture", "eval", "analyze", "plan", "rows",
    "vllm", "tracker",
}  # fmt: skip
Part = Mapping[str, Any]  # ``tables``, and ``data`` that they and the figures are made from


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One folder of `pkt analyze`.

    Attributes:
        folder: where it lies.
        parts: by name.
        asked: its request without `_ASIDE`; empty where the request is not there.
    """

    folder: Path
    parts: Mapping[str, Part]
    asked: Mapping[str, Any]


def read_analyses(folders: Iterable[Path]) -> list[Analysis]:
    """Read every `analysis.json` under the folders, the newest last (folders are named by the time)."""
    files = sorted({file for folder in folders for file in folder.rglob(ANALYSIS) if file.is_file()})
    return [
        Analysis(folder=file.parent.resolve(), parts=_parts(file), asked=_asked(file.parent))
        for file in files
    ]


def _parts(file: Path) -> dict[str, Part]:
    try:
        parts: dict[str, Part] = read_json(file)["parts"]
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(
            f"{file} cannot be read ({error}): leave its folder out, or analyse it again."
        ) from error
    return parts


def tables_of(part: Part) -> tuple[Table, ...]:
    """Return the tables of a part."""
    return tuple(Table.from_data(table["title"], table) for table in part["tables"])


def analysed_parts(run: Run, analyses: Sequence[Analysis]) -> dict[str, Part]:
    """Return the parts about a run: those in its own folder, and of analyses that asked for the same.

    Args:
        run: with its folder.
        analyses: what was read; later ones win.
    """
    folder, asked = Path(run["folder"]).resolve(), _asked(Path(run["folder"]))
    parts: dict[str, Part] = {}
    for analysis in sorted(analyses, key=lambda each: each.folder == folder):  # its own folder's last
        if analysis.folder == folder or (asked and analysis.asked == asked):
            parts |= analysis.parts
    return parts


def _asked(folder: Path) -> dict[str, Any]:
    request = read_request({"folder": folder})
    return {name: value for name, value in request.items() if name not in _ASIDE} if request else {}
