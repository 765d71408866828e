"""Run the jobs of a plan: one `pkt` process each, several at once; a repeat reuses what the store has.

    Plan -> <output_dir>/paper/<pair>/<target>/<job>/ with the run's files, <job>.log beside it

With PKT_LAUNCHER set every job goes to that Hydra launcher as a sweep of one (a cluster's queue, for instance).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from paper.targets import Job, Plan
from pkt import console
from pkt.errors import PktError

LAUNCHER = "PKT_LAUNCHER"
GRACE = 5.0  # seconds between asking a job to stop and stopping it
ENDS = {0: "done", 2: "refused", 130: "stopped"}


def command(job: Job) -> str:
    """Return the line that runs a job by hand."""
    return shlex.join(["pkt", job.verb, *job.words])


def log_of(folder: Path) -> Path:
    """Return the file that takes what a job prints; the job's own folder is pkt's to make."""
    return folder.with_name(f"{folder.name}.log")


def run_jobs(plan: Plan, output_dir: Path, words: Sequence[str], *, at_once: int) -> list[Path]:
    """Run every job and return their folders.

    Args:
        plan: which jobs.
        output_dir: where the store and the jobs' folders are.
        words: more words for every request.
        at_once: processes that run together.

    Raises:
        PktError: a job failed; the others were run all the same.
    """
    root = output_dir / "paper" / plan.pair / plan.target
    folders = [root / job.name for job in plan.jobs]
    runner = Runner(plan=plan, output_dir=output_dir, words=tuple(words))
    pool = ThreadPoolExecutor(at_once)
    try:
        codes = list(pool.map(runner.run, plan.jobs, folders))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        runner.stop()
    if failed := sum(code != 0 for code in codes):
        raise PktError(
            f"{failed} of {len(codes)} jobs failed; each said why in its .log in {root}. "
            "The same command goes on from here."
        )
    return folders


@dataclass(kw_only=True)
class Runner:
    """Runs each job as a process, and can stop those that still run.

    Attributes:
        plan: which the jobs belong to.
        output_dir: where the store is.
        words: more words for every request.
    """

    plan: Plan
    output_dir: Path
    words: tuple[str, ...]
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def run(self, job: Job, folder: Path) -> int:
        """Run one job, say how it ended, and return its exit code."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with log_of(folder).open("wb") as log:
            process = subprocess.Popen(self._line(job, folder), stdout=log, stderr=subprocess.STDOUT)
            self._running.append(process)
            code = process.wait()
            self._running.remove(process)
        console.say(f"{ENDS.get(code, f'failed ({code})'):<12}{job.name}")
        if code:
            console.note(_last_words(log_of(folder)))
        return code

    def stop(self) -> None:
        """Stop what still runs; a training has its snapshot, and goes on when it is asked for again.

        A process that was started in the background of a script is deaf to SIGINT, and gets SIGTERM.
        """
        running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()

    def _line(self, job: Job, folder: Path) -> list[str]:
        bare = [word for word in job.words if "=" not in word]  # what `pkt analyze` takes first
        rest = [word for word in job.words if "=" in word]
        common = [f"output_dir={self.output_dir}", f"tracker.group={self.plan.target}-{self.plan.pair}"]
        flags, place = [], [f"hydra.run.dir={folder}"]
        if os.environ.get(LAUNCHER, "basic") != "basic":
            flags, place = ["-m"], [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=job"]
        return [sys.executable, "-m", "pkt", job.verb, *bare, *flags, *rest, *common, *self.words, *place]


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-3:])
