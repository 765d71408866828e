"""What a run or a sweep has left in its folder, for Python.

run folder (config.yaml, scores.json, table.md, stages.json, report.html) -> Result
sweep folder with one of these per job                                    -> Sweep
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pkt.durable import read_json
from pkt.errors import RequestError
from pkt.run_files import ANALYSIS, CHECKPOINT, PAGE, PLAN, REQUEST, RUN_STAGES, SCORES, TABLE


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a run and a sweep both leave.

    Attributes:
        folder: of the run or sweep.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Take a folder as a text too."""
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def table(self) -> str | None:
        """The table that the command line prints, as Markdown; None where there was none."""
        file = self.folder / TABLE
        return file.read_text(encoding="utf-8") if file.is_file() else None

    @property
    def report(self) -> Path | None:
        """The page."""
        return _there(self.folder / PAGE)

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows."""
        return self.table or f"`{self.folder}`"


@dataclass(frozen=True, kw_only=True)
class Result(Left):
    """A run; whatever its verb does not make is None."""

    @cached_property
    def request(self) -> dict[str, Any]:
        """The request, interpolations filled in and credentials hidden; empty of `pkt plan`."""
        file = self.folder / REQUEST
        return dict(yaml.safe_load(file.read_text(encoding="utf-8"))) if file.is_file() else {}

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """All that `scores.json` holds: scores, shares of the gap, settings, budget, notes."""
        return self._json(SCORES)

    @property
    def scores(self) -> dict[str, dict[str, dict[str, Any]]] | None:
        """Model (teacher, student, transferred) -> task -> metric, value (0 to 1, or as the task has it), stderr, n."""
        return None if self.summary is None else self.summary["scores"]

    @property
    def gap_closed(self) -> dict[str, Any] | None:
        """Share of the distance from student to teacher that was closed, per task, with its interval, where known."""
        return None if self.summary is None else self.summary["gap_closed"]

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """Each stage with ``reused``, ``seconds``, ``peak_mb``, ``key``, and ``path``, where its result lies."""
        found = self._json(RUN_STAGES)
        if found is None:
            return []
        root = self.folder / found["store"]
        return [
            entry
            | (
                {"path": (root / entry["stage"].split()[0] / entry["key"]).resolve()}
                if "key" in entry
                else {}
            )
            for entry in found["stages"]
        ]

    @property
    def checkpoint(self) -> Path | None:
        """The student's folder, for ``AutoModelForCausalLM.from_pretrained``."""
        paths = [stage["path"] for stage in self.stages if stage["stage"] == "transfer"]
        return _there(paths[-1] / CHECKPOINT) if paths else None

    @property
    def analysis(self) -> dict[str, Any] | None:
        """What `pkt analyze` found."""
        return self._json(ANALYSIS)

    @property
    def plan(self) -> dict[str, Any] | None:
        """What `pkt plan` says that the request will take, and under ``lacking`` what does not fit."""
        return self._json(PLAN)

    def _json(self, name: str) -> dict[str, Any] | None:
        file = self.folder / name
        return dict(read_json(file)) if file.is_file() else None


@dataclass(frozen=True, kw_only=True)
class Sweep(Left):
    """The runs of a sweep."""

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """A result per job, in the order of the jobs; those that failed left none."""
        jobs = sorted(self.folder.rglob(RUN_STAGES), key=lambda file: _natural(file.parent))
        return tuple(Result(folder=file.parent) for file in jobs)

    def __getitem__(self, overrides: Mapping[str, Any]) -> Result:
        """Return the one job whose request has these values, such as ``sweep[{"seed": 1, "optim.lr": 1e-3}]``.

        Raises:
            RequestError: there is no such job, or more than one.
        """
        if not isinstance(overrides, Mapping):
            raise RequestError(
                f"sweep[{overrides!r}]: a job is named by settings, as in sweep[{{'seed': 1}}]; sweep.results has all "
                "jobs, by number"
            )
        found = [one for one in self.results if all(_at(one.request, k) == v for k, v in overrides.items())]
        if len(found) != 1:
            raise RequestError(f"{len(found)} jobs of {self.folder} have {dict(overrides)}; name one of them")
        return found[0]


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _natural(folder: Path) -> tuple[int, str]:
    """Sort jobs, which are folders named by a number, as numbers."""
    return (int(folder.name), "") if folder.name.isdigit() else (-1, str(folder))


def _at(request: Mapping[str, Any], dotted: str) -> Any:
    """Return the value of a key of a request; the name, of a group that has one."""
    value: Any = request
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("name", value) if isinstance(value, Mapping) else value
