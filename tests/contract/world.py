"""Tiny pairs on disk and `pkt transfer` in this process: all of it but the shell.

A run that several tests look at is made once and shared, also between pytest's workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from matrix import FAMILIES, METHODS, STUDENT, TEACHER
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from pkt.checks import check
from pkt.pipeline import open_session, planner, run_plan
from pkt.searchpath import builtin_conf_dir, register
from tiny import tiny_model, tiny_tokenizer

SAVING = "saving"  # a stop between the end of a method's work and its artifact


class StoppedError(Exception):
    """Stands for a kill."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Where a run is stopped: at an optimiser step, when something that progress calls `what` begins, or `SAVING`."""

    step: int | None = None
    what: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left.

    Attributes:
        folder: of the checkpoint's artifact.
        results: folders of the stages before.
        steps: metrics of each optimiser step.
        logits: of the changed student in memory.
    """

    folder: Path
    results: dict[str, Path]
    steps: list[dict[str, float]]
    logits: torch.Tensor

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Of the saved student."""
        return load_file(self.folder / "model" / "model.safetensors")

    @property
    def record(self) -> dict[str, Any]:
        """History, budget and the teacher's tokens."""
        meta = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))["meta"]
        metrics = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        return {**metrics, "teacher_forward_tokens": meta["teacher_forward_tokens"], "layers": meta["layers"]}


class Watched:
    """A method that remembers the student which it changed."""

    def __init__(self, method: Any, stop: Stop | None) -> None:
        self.method, self.stop = method, stop
        self.student: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def transfer(self, bench: Any, alignment: Any, scratch: Path | None) -> Any:
        self.student = bench.student
        transferred = self.method.transfer(bench, alignment, scratch)
        if self.stop is not None and self.stop.what == SAVING:
            raise StoppedError
        return transferred


def logits(model: Any) -> torch.Tensor:
    """Of a model at fixed tokens."""
    ids = torch.randint(3, 320, (2, 12), generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().cpu()


@lru_cache(maxsize=256)
def composed(*overrides: str) -> DictConfig:
    """A request as the command line would make it."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose("transfer", overrides=list(overrides))


@dataclass(frozen=True, kw_only=True)
class World:
    """Pairs and rows on disk, and the runs that tests share."""

    root: Path

    def make(self) -> None:
        """Write pairs and rows."""
        for family, sizes in FAMILIES.items():
            for role, own in (("teacher", TEACHER), ("student", STUDENT)):
                folder = self.root / family / role
                tiny_model(family, **(own | sizes)).save_pretrained(folder)
                tiny_tokenizer().save_pretrained(folder)
        for name, numbers in (("train", range(40)), ("test", range(40, 44))):
            rows = [
                {
                    "id": str(i),
                    "prompt": f"Ada has {i} of {i % 7} apples.\nResult:",
                    "answer": f" {i * 7 % 90}",
                }
                for i in numbers
            ]
            (self.root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def student(self, family: str) -> Path:
        """Folder of the untouched student."""
        return self.root / family / "student"

    def request(self, method: str, family: str, settings: tuple[str, ...], dtype: str) -> DictConfig:
        """Compose a request."""
        sizes = {"extract": 4, "align": 8, "train": 8, "validation": 4}
        base = [f"method={method}", "benchmark=custom", "tracker=none", "threads=1", "output_dir=unset"]
        base += [f"model.{role}.dtype={dtype}" for role in ("teacher", "student")]
        base += [f"data.sizes.{split}={count}" for split, count in sizes.items()]
        base += ["optim.epochs=2", "optim.batch_size=4", "optim.lr=0.01", "optim.save_every=0"]
        checkpoints = {
            role: {"checkpoint": str(self.root / family / role)} for role in ("teacher", "student")
        }
        data = {name: str(self.root / f"{name}.jsonl") for name in ("train", "test")}
        # paths come after composing, so that one composed request serves all families
        merged = OmegaConf.merge(composed(*base, *settings), {"model": checkpoints, "data": data})
        assert isinstance(merged, DictConfig)
        return merged

    def run(
        self,
        method: str,
        family: str,
        *more: str,
        outputs: Path,
        dtype: str = "float32",
        stop: Stop | None = None,
        settings: tuple[str, ...] | None = None,
        teacher: Path | None = None,
    ) -> Run:
        """Do what `pkt transfer` does.

        Args:
            method: name in the matrix.
            family: name in `FAMILIES`.
            more: overrides beside the matrix's settings.
            outputs: folder of the store.
            dtype: of both models.
            stop: where the run is stopped.
            settings: in place of the matrix's.
            teacher: in place of the family's.

        Raises:
            StoppedError: at `stop`.
        """
        chosen = METHODS[method].settings if settings is None else settings
        cfg = self.request(method, family, (*chosen, *more), dtype)
        cfg.output_dir = str(outputs)
        if teacher is not None:
            cfg.model.teacher.checkpoint = str(teacher)
        check(cfg)
        session = open_session(cfg, outputs / "runs")
        planned = planner(session)
        planned.chain("transfer")
        watched = Watched(session.method, stop)
        session.method = watched
        steps: list[dict[str, float]] = []
        session.bench.log, session.bench.track = _log(steps, stop), _track(stop)
        try:
            run_plan(session, planned.plan)
            results = {stage: session.results[stage].path for stage in watched.results}
        finally:
            session.tracker.close()
        return Run(
            folder=session.results["transfer"].path,
            results=results,
            steps=steps,
            logits=logits(watched.student.model),
        )

    def shared(self, method: str, family: str, *more: str, dtype: str = "float32") -> Run:
        """Return a run that other tests look at too."""
        name = sha256(json.dumps([method, family, more, dtype]).encode()).hexdigest()[:12]
        folder = self.root / "shared" / name
        kept = folder / "run.pt"
        with FileLock(self.root / f"{name}.lock"):
            if not kept.exists():
                torch.save(vars(self.run(method, family, *more, outputs=folder, dtype=dtype)), kept)
            return Run(**torch.load(kept, weights_only=False))


def _log(steps: list[dict[str, float]], stop: Stop | None) -> Callable[[int, dict[str, float]], None]:
    def log(step: int, metrics: dict[str, float]) -> None:
        steps.append(metrics)
        if stop is not None and stop.step == step:
            raise StoppedError

    return log


def _track(stop: Stop | None) -> Any:
    @contextmanager
    def track(what: str, _total: int) -> Iterator[Callable[[int], None]]:
        if stop is not None and stop.what is not None and stop.what in what:
            raise StoppedError
        yield lambda _n, *, shown=None: None

    return track
