"""Run the jobs of a plan: one process each, several at once; a repeat reuses what the store has.

    Plan -> <output_dir>/paper/<pair>/<target>/<job>/ with the run's files, <job>.log beside it

The processes are forks of one that has imported pkt and all below it, which takes nine seconds of CPU time: as long
as a short training.

With PKT_LAUNCHER set every job goes to that Hydra launcher as a sweep of one (a cluster's queue, for instance).
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from threading import Lock

from paper.plans import Job, Plan
from pkt import cli, console
from pkt.errors import PktError

LAUNCHER = "PKT_LAUNCHER"
GRACE = 5.0  # seconds between asking a job to stop and stopping it
IMPORTED = ("pkt.pipeline",)
NO_FORKS = (
    "/dev/nvidiactl",
    "/dev/kfd",
)  # of machines with a GPU, whose libraries may not be used after a fork
ENDS = {0: "done", 2: "refused", 130: "stopped"}


def command(job: Job, words: Sequence[str] = ()) -> str:
    """Return the line that runs a job by hand, with more words for every request."""
    return shlex.join(["pkt", job.verb, *job.words, *words])


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


def processes(words: Sequence[str]) -> ForkServerContext:
    """Return what starts processes: forks of one that only imports, where forks can be trusted.

    Args:
        words: of every request.
    """
    context = multiprocessing.get_context("forkserver")
    on_gpu = "device=cpu" not in words and any(map(os.path.exists, NO_FORKS))
    trusted = sys.platform == "linux" and not on_gpu
    context.set_forkserver_preload([*IMPORTED] if trusted else [])
    return context


def answer(words: Sequence[str], log: Path) -> None:
    """Answer a request in this process, and leave it with the request's exit code.

    Args:
        words: after `pkt`.
        log: takes what is printed.
    """
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    # a fork leaves without what Python does at its end: temporary folders of libraries (wandb's) would stay
    with tempfile.TemporaryDirectory(prefix="pkt-job-", ignore_cleanup_errors=True) as own:
        tempfile.tempdir = own
        code = cli.main(words)
    sys.exit(code)


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
    _processes: ForkServerContext = field(init=False)
    _running: list[ForkServerProcess] = field(default_factory=list, init=False)
    # a process's exit code can be read once, and starting one reads those of all that have ended
    _one_reads: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        """Start nothing yet."""
        self._processes = processes(self.words)

    def run(self, job: Job, folder: Path) -> int:
        """Run one job, say how it ended, and return its exit code."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        log = log_of(folder)
        log.write_bytes(b"")  # what an earlier process said is not what this one says
        process = self._processes.Process(target=answer, args=(self._words(job, folder), log))
        with self._one_reads:
            process.start()
            self._running.append(process)
        wait([process.sentinel])
        with self._one_reads:
            self._running.remove(process)
            code = process.exitcode
        assert code is not None
        console.say(f"{ENDS.get(code, f'failed ({code})'):<12}{job.name}")
        if code:
            console.note(_last_words(log))
        return code

    def stop(self) -> None:
        """Stop what still runs; a training has its snapshot, and goes on when it is asked for again.

        A process that was started in the background of a script is deaf to SIGINT, and gets SIGTERM.
        """
        running = list(self._running)
        for process in running:
            _send(process, signal.SIGINT)
        for process in running:
            if not wait([process.sentinel], GRACE):
                _send(process, signal.SIGTERM)
                wait([process.sentinel])

    def _words(self, job: Job, folder: Path) -> list[str]:
        bare = [word for word in job.words if "=" not in word]  # what `pkt analyze` takes first
        rest = [word for word in job.words if "=" in word]
        common = [f"output_dir={self.output_dir}", f"tracker.group={self.plan.target}-{self.plan.pair}"]
        flags, place = [], [f"hydra.run.dir={folder}"]
        if os.environ.get(LAUNCHER, "basic") != "basic":
            flags, place = ["-m"], [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=job"]
        return [job.verb, *bare, *flags, *rest, *common, *self.words, *place]


def _send(process: ForkServerProcess, what: signal.Signals) -> None:
    assert process.pid
    with suppress(ProcessLookupError):  # it has ended
        os.kill(process.pid, what)


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-3:])
