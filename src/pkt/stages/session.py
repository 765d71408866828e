"""One request while its plan is carried out: its strategies, its store, the results so far, and its tracker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pkt import console
from pkt.differences import reason
from pkt.errors import PktError
from pkt.methods.base import Method
from pkt.methods.workbench import Workbench
from pkt.planner import Plan, Step
from pkt.stages.shown import Shown, shown
from pkt.store import Artifact, Store
from pkt.surroundings import Stopwatch
from pkt.tracking import Tracker
from pkt.training.meter import Meter


@dataclass(kw_only=True)
class Session:
    """A request with all that its stages need.

    Attributes:
        bench: models, rows and strategies, loaded when first asked for.
        method: what is run.
        store: where stage results live.
        run_dir: this run's folder: resolved config, metrics, tables, figures.
        tracker: takes metrics, tables and figures.
        command: the command line, for the record.
        choices: the file that it took from each group of the configuration, for the record.
        provenance: finds out versions and platform, for the record.
        resolved_config: the request as YAML, interpolations filled in.
        plugins: version and code of other people's packages among the strategies.
        seeded: the settings that follow the request's seed, the seed itself among them.
        plan: the steps; empty until the pipeline has made it.
        results: what this run has computed or reused, by the step's name.
        reports: one entry per step: computed or reused, seconds, peak memory, key.
    """

    bench: Workbench
    method: Method
    store: Store
    run_dir: Path
    tracker: Tracker
    command: str
    provenance: Callable[[], Mapping[str, Any]]
    resolved_config: str
    choices: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, Any] = field(default_factory=dict)
    seeded: frozenset[str] = frozenset({"seed"})
    plan: Plan = field(default_factory=lambda: Plan(steps={}))
    results: dict[str, Artifact] = field(default_factory=dict, init=False)
    reports: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Versions, platform, and other people's packages, for manifests and cards."""
        return {**self.provenance(), **({"plugins": dict(self.plugins)} if self.plugins else {})}

    def loaded(self, stage: str) -> Any:
        """Read the result of a stage of the method (``extract``, ``align``) that is there."""
        return self.method.results[stage].load(self.results[stage].path)

    def shown(self, stage: str) -> Shown:
        """Return what is shown of such a result; its tensors are read the first time only."""
        kind, folder = self.method.results[stage], self.store.root / "shown"
        return shown(self.results[stage], kind, folder, lambda: self.loaded(stage))

    def obtain(self, step: Step, run: Callable[[Job], Mapping[str, Any] | None]) -> Artifact:
        """Make sure that a step's result is in the store, and remember it.

        Args:
            step: the steps that it takes have been obtained.
            run: writes the result's files into the job's folder, and returns what the manifest should say.
        """
        refresh, processes = step.stage in self.bench.config.refresh, self.bench.processes
        artifact, why = None if refresh else self.store.peek(step.stage, step.key), None
        there = processes.told(artifact is not None)  # all processes do the same
        watch = Stopwatch.start(self.bench.gpu)
        if not there:
            with self.store.lock(step.stage, step.key) if processes.main else nullcontext():
                artifact = self.store.read(step.stage, step.key) if processes.main and not refresh else None
                there, watch = processes.told(artifact is not None), Stopwatch.start(self.bench.gpu)
                if not there:
                    why = self._reason(step, refresh=refresh)
                    artifact = self._made(step, run, watch)
                processes.wait()
        artifact = artifact or self.store.read(step.stage, step.key)
        if artifact is None:
            raise PktError(
                f"{step.name} {step.key} is there for the main process and not for this one: all processes of a "
                f"request need the same store ({self.store.root}), on a file system that they share"
            )
        self.results[step.name] = artifact
        cost = watch.stop()
        entry = {"stage": step.name, "key": step.key, "reused": there, **cost}
        self.reports.append(entry | ({"reason": why} if why else {}))
        console.stage(
            step.name, "reused" if there else "computed", cost["seconds"], cost["peak_mb"], step.key
        )
        return artifact

    def _made(
        self, step: Step, run: Callable[[Job], Mapping[str, Any] | None], watch: Stopwatch
    ) -> Artifact | None:
        """Compute a result; in all processes but the main one, which writes it, only help to."""
        if self.bench.processes.main:
            return self._computed(step, run, watch)
        with tempfile.TemporaryDirectory() as folder:
            run(Job(session=self, step=step, folder=Path(folder)))
            self.bench.processes.wait()
        return None

    def _computed(
        self, step: Step, run: Callable[[Job], Mapping[str, Any] | None], watch: Stopwatch
    ) -> Artifact:
        _ = self.bench.device  # torch is seeded before anything is computed
        with self.store.write(step.stage, step.key, ingredients=step.ingredients) as draft:
            draft.note(run(Job(session=self, step=step, folder=draft.folder)) or {})
            self.bench.processes.wait()  # others may still read what lies in the draft, which then goes elsewhere
            draft.note({"command": self.command, "provenance": self.origin})
            draft.note(watch.stop())
        artifact = self.store.read(step.stage, step.key)
        if artifact is None:
            raise PktError(
                f"{step.name} {step.key} was written and reads differently: the disk under {self.store.root} fails; "
                "set output_dir (PKT_OUTPUT_DIR) to another one"
            )
        return artifact

    def _reason(self, step: Step, *, refresh: bool) -> str | None:
        """Find out why a result has to be computed, and print it before the work begins."""
        why = (
            "refresh" if refresh else reason(step.stage, step.ingredients, self.store.ingredients(step.stage))
        )
        if why:
            console.note(f"{step.name}: {why}")
        return why


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a stage works on.

    Attributes:
        session: the request, and the results so far.
        step: what is to be made.
        folder: where its files go.
    """

    session: Session
    step: Step
    folder: Path

    @property
    def bench(self) -> Workbench:
        """Models, rows and strategies."""
        return self.session.bench

    @property
    def method(self) -> Method:
        """What is run."""
        return self.session.method

    @property
    def writes(self) -> bool:
        """Whether this process writes the result."""
        return self.bench.processes.main

    @property
    def scratch(self) -> Path:
        """Folder for resumable state, which goes when the result is complete."""
        return self.session.store.partial(self.step.stage, self.step.key)

    def taken(self) -> Any:
        """Read the result of the method's stage before this one; None where it has none."""
        before = [name for name in self.step.takes if name in self.method.results]
        return self.session.loaded(before[-1]) if before else None

    def count_on(self) -> None:
        """Set the meters to where this stage starts: the teacher's at zero, the student's at what it has cost so far.

        A stage then counts the same whether those before it ran in this process or are reused, and a resumed
        training goes on from what its snapshot had counted.
        """
        nothing = asdict(Meter())
        before = self.session.results[self.step.takes[-1]].meta if self.step.takes else {}
        self.bench.teacher_meter.restore(nothing)
        self.bench.student_meter.restore(before.get("student_work", nothing))

    def counted(self) -> dict[str, Any]:
        """Return what the manifest says of a stage's cost: the teacher's tokens, and the student's work so far."""
        return {
            "teacher_forward_tokens": self.bench.teacher_meter.forward_tokens,
            "student_work": asdict(self.bench.student_meter),
        }
