"""The end of a sweep: one table over its jobs, seeds averaged, methods side by side, and a report.

hydra -m ──> callbacks (where the jobs' folders are) ──> jobs ──> request ──> show_table

Hydra calls nothing at the end of a sweep in which a job failed, so the request notices the end itself.
"""

from __future__ import annotations

import math
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pkt import console
from pkt.callbacks import Guard
from pkt.durable import write_atomically
from pkt.errors import PktError, RequestError
from pkt.run_files import SCORES, TABLE

if TYPE_CHECKING:
    from pkt.reporting.page.report import Report


def check_sweeper(cfg: DictConfig) -> None:
    """Refuse to optimise by anything but the share of the gap closed on validation rows.

    Args:
        cfg: the composed request of one job.

    Raises:
        RequestError: the sweeper chooses settings by what jobs return, and this job would return nothing, or would
            have to be judged by test rows.
    """
    sweeper = _optimiser()
    if sweeper is None:
        return
    if cfg.verb not in ("run", "eval"):
        raise RequestError(
            f"{sweeper} optimises what jobs measure, and `pkt {cfg.verb}` scores nothing: use pkt run"
        )
    if cfg.eval.split == "test":
        raise RequestError(
            f"{sweeper} chooses settings, which test rows are not for: set eval.split=validation, and score the "
            "chosen settings on the test rows in a run of their own"
        )
    if len(set(cfg.eval.models)) < 3:
        raise RequestError(
            f"{sweeper} optimises the gap closed, which takes eval.models=[teacher,student,transferred]"
        )


def checked_objective(measured: float | None) -> float | None:
    """Return what a job measured, for the sweeper that optimises it; check that it did.

    Raises:
        RequestError: there is such a sweeper, and nothing was measured.
        PktError: there is one, and a score is not a number, which counts as a failed trial and never as the best.
    """
    if measured is not None and not math.isfinite(measured) and (sweeper := _optimiser()):
        raise PktError(
            f"{sweeper} has nothing to optimise: a score of this job is not a number (see its table). Lower "
            "optim.lr, or load the models in float32 (model.teacher.dtype, model.student.dtype)"
        )
    if measured is None and (sweeper := _optimiser()):
        raise RequestError(
            f"{sweeper} has nothing to optimise: on these rows the teacher is not above the student by two standard "
            "errors on any task; use more of them (data.sizes.validation, eval.limit)"
        )
    return measured


def no_best_trial(error: BaseException) -> str | None:
    """Say that a study has nothing to choose from, where that is why its sweeper stopped; else None."""
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not {"best_trial", "best_trials"} & set(frames):
        return None
    return (
        "no trial of the study ended with a number to optimise, so there is no best one: each trial's message is "
        "above; mend what they say (or hydra.sweeper.n_trials), and the same command goes on with the study"
    )


def _optimiser() -> str | None:
    """Return the name of the sweeper that runs this job, if it learns from what jobs return."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    name = str(HydraConfig.get().sweeper.get("_target_")).rpartition(".")[2]
    return None if name == "BasicSweeper" else name


def show_table() -> None:
    """Print the tables over the jobs of the sweep that has ended; leave them and a report in the sweep's folder.

    Jobs of different models, test rows or ways of scoring get a table each; jobs without scores are named. Nothing is
    shown where there was no sweep of at least two jobs, or none was scored.
    """
    folder, Guard.sweep = Guard.sweep, None
    if folder is None:
        return
    from pkt.tracking.sweep_run import job_requests, log_sweep, refused_requests

    jobs = [*job_requests(folder), *refused_requests(folder)]
    if len(jobs) < 2 or not any(folder.rglob(SCORES)):
        return
    from pkt.reporting.page.answer import lines
    from pkt.reporting.page.write import write_report

    report, files = write_report([folder], out=folder)
    for index, section in enumerate(report.sections):
        title = f"{section.title}: {section.table.title}"
        name = TABLE if index == 0 else f"table_{index + 1}.md"
        write_atomically(folder / name, f"{title}\n\n{section.table.markdown()}\n")
        console.say("")
        console.table(title, section.table.columns, section.table.rows)
    for told in report.left_out:
        console.note(told)
    titled = [replace(one.table, title=f"{one.title}: {one.table.title}") for one in report.sections]
    log_sweep(folder, titled, _numbers(report))
    console.say(f"{'sweep':<11}{folder}")
    console.say(f"{'report':<11}{files[0]}")
    for section in report.sections:
        of = f"{section.title}: " if len(report.sections) > 1 else ""
        for word, line in lines(section.study) if section.study else ():
            console.say(f"{word:<11}{of}{line}")


def _numbers(report: Report) -> dict[str, float]:
    """Return every arm's scores and shares of the gap, by name."""
    named: dict[str, float | None] = {}
    benchmarks = [section.numbers[0].benchmark for section in report.sections]
    for number in (number for section in report.sections for number in section.numbers):
        study = number.benchmark if benchmarks.count(number.benchmark) == 1 else number.study
        name = f"{study}/{number.arm}/{number.task}"
        named |= {
            name: number.value,
            f"{name}/stderr": number.stderr,
            f"{name}/gap_closed": number.gap_closed,
            f"{name}/gap_closed/low": number.gap_closed_low,
            f"{name}/gap_closed/high": number.gap_closed_high,
        }
    return {name: value for name, value in named.items() if value is not None and math.isfinite(value)}
