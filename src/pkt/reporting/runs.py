"""Read the folders that `pkt run` and `pkt eval` leave, and group runs of equal making into arms.

    folders of scores.json -> Found (runs, and what was left out, with reasons) -> arms (differ in their seed alone)

What makes runs alike is what their results were made from (`stages.identity`), which a run keeps beside its scores:
``study`` (models, test rows, how they were scored) and ``arm`` (what made the student, without the seed). Runs of older
formats kept neither; they are told apart by names, settings and the scores of the untouched models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pkt.durable import read_json
from pkt.errors import RequestError
from pkt.manifest import MANIFEST
from pkt.reporting.labels import labels
from pkt.run_files import SCORES
from pkt.tracking.sweep_run import job_requests, refused_requests

Run = dict[str, Any]
FIXED = ("teacher", "student")  # models that are the same for all runs of a study
_NEEDED = ("method", "model", "benchmark", "split", "seed", "settings", "scores", "stages")
_TEXT = dict.fromkeys(("method", "model", "benchmark", "split", "store"), str)
_OBJECTS = dict.fromkeys(("settings", "choices", "scores", "study", "arm", "names", "budget", "layers"), dict)
_FORM: Mapping[str, type] = {**_TEXT, **_OBJECTS, "seed": int, "stages": list, "notes": list}
_OF_SCORE = {"task", "metric", "value", "stderr", "higher_is_better"}
_SCORING = ("run", "eval")  # the verbs that leave scores


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runs that differ in their seed alone. The teacher and the untouched student are arms too.

    Attributes:
        label: its name in tables.
        runs: in the order in which they were read.
        role: the model whose scores the arm stands for.
    """

    label: str
    runs: tuple[Run, ...]
    role: str = "transferred"

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.runs[0]["method"])

    @property
    def first(self) -> Run:
        """The run of the lowest seed: the one that pictures and examples are of."""
        return min(self.runs, key=lambda run: int(run["seed"]))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs, ascending."""
        return tuple(sorted(int(run["seed"]) for run in self.runs))


@dataclass(frozen=True, kw_only=True)
class Found:
    """The runs below some folders.

    Attributes:
        runs: what their files hold, and under ``folder`` where each one lies.
        left_out: what could not be used, a sentence each with the reason.
    """

    runs: tuple[Run, ...]
    left_out: tuple[str, ...]


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the runs that `find_runs` finds."""
    return list(find_runs(folders).runs)


def find_runs(folders: Iterable[Path]) -> Found:
    """Read every `scores.json` under the folders that holds a transferred student's scores.

    Scores of other rows than the test rows are a benchmark of their own, whose name says so.

    Raises:
        RequestError: there is none that can be used; the message has the reasons.
    """
    folders = list(folders)
    files = {file.resolve(): file for folder in folders for file in folder.rglob(SCORES)}
    # a store keeps files of this name too, with the answers behind the scores
    files = {real: file for real, file in files.items() if not (file.parent / MANIFEST).exists()}
    runs, left_out = [], []
    for file in sorted(files.values()):
        read = _read(file)
        if isinstance(read, str):
            left_out.append(read)
        else:
            runs.append(_named_by_split(read))
    left_out += _unscored(folders)
    if not runs:
        where = ", ".join(map(str, folders))
        raise RequestError(
            "; ".join(left_out) if left_out else f"no {SCORES} under {where}: run `pkt run` first."
        )
    return Found(runs=tuple(runs), left_out=tuple(left_out))


def _read(file: Path) -> Run | str:
    """Return a run, or why it cannot be used."""
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        return f"{file} cannot be read ({error}): leave its folder out, or run it again."
    lacking = [name for name in _NEEDED if name not in content] if isinstance(content, dict) else _NEEDED
    if lacking:
        return f"{file} is left out: not the scores of a run (no {', '.join(lacking)})."
    if odd := _misshapen(content):
        return f"{file} is left out: its {', '.join(odd)} cannot be read (it was changed by hand?): run it again."
    if not content["scores"].get("transferred"):
        return f"{file.parent} is left out: no transferred student was scored there (eval.models)."
    return {**content, "folder": str(file.parent.resolve())}


def _misshapen(content: Run) -> list[str]:
    """Name the parts of a file that have not the form in which runs write them."""
    odd = [name for name, form in _FORM.items() if name in content and not isinstance(content[name], form)]
    if odd:
        return odd
    roles = content["scores"].values()
    scores = [one for role in roles for one in (role.values() if isinstance(role, dict) else [None])]
    parts = {
        "scores": all(isinstance(one, dict) and one.keys() >= _OF_SCORE for one in scores),
        "stages": all(isinstance(one, dict) and one.keys() >= {"stage", "key"} for one in content["stages"]),
        "layers": set(content.get("layers", FIXED)) >= set(FIXED),
    }
    return [name for name, good in parts.items() if not good]


def _unscored(folders: Sequence[Path]) -> list[str]:
    """Name the runs that should have left scores and did not."""
    asked = {file.resolve(): file.parent for folder in folders for file in job_requests(folder)}
    asked |= {file.resolve(): file.parent.parent for each in folders for file in refused_requests(each)}
    return [
        f"{folder.resolve()} is left out: it has no scores (the run was refused, failed, was stopped, or is not done)."
        for file, folder in sorted(asked.items())
        if not any((folder / name).exists() for name in (SCORES, MANIFEST)) and _verb(file) in _SCORING
    ]


def _verb(file: Path) -> Any:
    """Return the verb that a request in a run's folder asked for; None where the file is something else."""
    try:
        request = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None  # whatever it is, no run has written it
    return request.get("verb") if isinstance(request, dict) else None


def _named_by_split(run: Run) -> Run:
    if run["split"] == "test":
        return run
    return run | {"benchmark": f"{run['benchmark']} ({run['split'].upper()} rows, not test)"}


def study_of(run: Run) -> dict[str, Any]:
    """Return what all runs of a study have in common: models, tasks with their rows, how they were scored.

    Of an older run: the names, and the tasks with the scores of the models that no run changes.
    """
    if "study" in run:
        return dict(run["study"])
    names = {"model": run["model"], "benchmark": run["benchmark"]}
    asked = {task: _facts(score) for task, score in run["scores"]["transferred"].items()}
    fixed = {f"{role} on {task}": [score["value"], score["stderr"]] for role in FIXED for task, score in
             run["scores"].get(role, {}).items()}  # fmt: skip
    return names | asked | fixed


def _facts(score: Mapping[str, Any]) -> list[Any]:
    return [score.get(name) for name in ("metric", "n", "higher_is_better")]


def arm_of(run: Run) -> dict[str, Any]:
    """Return what made a run's student, the seed left out; of an older run its settings."""
    return dict(run["arm"] if "arm" in run else run["settings"])


def same(found: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal things."""
    return json.dumps(found, sort_keys=True)


def key_of(run: Run, label: str) -> str | None:
    """Return the key of a stage of a run, such as ``eval student``; None where the run does not name it."""
    return next((str(stage["key"]) for stage in run.get("stages", ()) if stage["stage"] == label), None)


def arms(runs: Sequence[Run]) -> list[Arm]:
    """Group the runs of a study into arms.

    No two labels are equal, and none is that of an untouched model.
    """
    grouped: dict[str, list[Run]] = {}
    for run in once(runs)[0]:
        grouped.setdefault(same(arm_of(run)), []).append(run)
    groups = [tuple(own) for own in grouped.values()]
    first = [group[0] for group in groups]
    names = labels(first, [arm_of(run) for run in first], FIXED)
    return [Arm(label=label, runs=own) for label, own in zip(names, groups, strict=True)]


def once(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return every arm's run of each seed once, and a sentence for each run that was passed over.

    Of equal runs the last one counts. A run of an older format whose settings and seed are those of another one with
    another student cannot be placed: it kept too little to say what else differs.
    """
    kept: dict[tuple[str, int], Run] = {}
    told = []
    for run in runs:
        place = (same(arm_of(run)), run["seed"])
        earlier = kept.setdefault(place, run)
        if earlier is run:
            continue
        both = f"{_where(run)} and {_where(earlier)}"
        keys = [key_of(one, "transfer") for one in (run, earlier)]
        if "arm" not in run and None not in keys and keys[0] != keys[1]:
            told.append(
                f"{_where(run)} is left out: its settings and seed are those of {_where(earlier)}, its student is "
                "another one, and this older format does not say why. Run both again: their stages are reused."
            )
            continue
        differ = "" if _agree(run, earlier) else " (their scores differ; the later one counts)"
        told.append(f"{both} are the same arm with the same seed and count once{differ}.")
        kept[place] = run
    return list(kept.values()), told


def _agree(run: Run, other: Run) -> bool:
    """Return whether two runs have the same scores, of the models that both scored."""
    both = run["scores"].keys() & other["scores"].keys()
    return all(run["scores"][role] == other["scores"][role] for role in both)


def _where(run: Run) -> str:
    return str(run.get("folder", f"{run['method']}, seed {run['seed']}"))


def tasks_of(run: Run) -> tuple[str, ...]:
    """Return the tasks that a run's student was scored on."""
    return tuple(run["scores"]["transferred"])
