"""One request on its way through the stages: what is asked for, where results live, who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pkt import console
from pkt.data.encoding import VERSION as ENCODING
from pkt.data.rows import fingerprint as rows_fingerprint
from pkt.methods.base import Method
from pkt.methods.workbench import Workbench
from pkt.run import Stopwatch
from pkt.store import Artifact, Store, content_key
from pkt.tracking import Tracker
from pkt.training.meter import Meter


@dataclass(kw_only=True)
class Session:
    """A request's workbench, method, store, tracker and console.

    Attributes:
        bench: models, rows and strategies, loaded when first asked for.
        method: what is run.
        store: where stage results live.
        run_dir: this run's folder: resolved config, metrics, tables, figures.
        tracker: takes metrics, tables and figures.
        command: the command line, for the record.
        provenance: versions and platform, for the record.
        resolved_config: the request as YAML, interpolations filled in.
        reports: one entry per stage: computed or reused, seconds, peak memory, key.
    """

    bench: Workbench
    method: Method
    store: Store
    run_dir: Path
    tracker: Tracker
    command: str
    provenance: Mapping[str, Any]
    resolved_config: str
    reports: list[dict[str, Any]] = field(default_factory=list)
    _obtained: dict[tuple[str, str], Artifact] = field(default_factory=dict, init=False)
    _fingerprints: dict[str, str] = field(default_factory=dict, init=False)

    @property
    def obtained(self) -> Mapping[tuple[str, str], Artifact]:
        """What this run has computed or reused: (stage, key) -> artifact."""
        return self._obtained

    def has(self, stage: str) -> bool:
        """Whether the method has a stage before `transfer` (``extract``, ``align``)."""
        return stage in self.method.results

    def rows_fingerprint(self, *splits: str) -> str:
        """Identity of the rows of some splits and of how they are tokenised."""
        bench = self.bench
        for split in splits:
            if split not in self._fingerprints:  # rows do not change within a request, and are many
                self._fingerprints[split] = rows_fingerprint(bench.splits[split])
        rows = {split: self._fingerprints[split] for split in splits}
        chat = bench.config.model.chat_template
        how = {"version": ENCODING, "max_length": bench.max_length, "chat_template": chat}
        return content_key({"rows": rows, "encoding": how})

    def key(self, stage: str, **parts: Any) -> str:
        """Return the content key of a stage: its settings and its inputs, and nothing else."""
        settings = dict(self.method.settings(stage, self.bench))
        return content_key({"stage": stage, "settings": settings, **parts})

    def count_from(self, before: Artifact | None) -> None:
        """Set the meters to where a stage starts: the teacher's at zero, the student's at what it has cost so far.

        A stage then counts the same whether those before it ran in this process or are reused, and a resumed
        training goes on from what its snapshot had counted.

        Args:
            before: the stage before this one, if the method has any.
        """
        nothing = asdict(Meter())
        self.bench.teacher_meter.restore(nothing)
        self.bench.student_meter.restore(before.meta.get("student_work", nothing) if before else nothing)

    def counted(self) -> dict[str, Any]:
        """Return what the manifest says of a stage's cost: the teacher's tokens, and the student's work so far."""
        bench = self.bench
        return {
            "teacher_forward_tokens": bench.teacher_meter.forward_tokens,
            "student_work": asdict(bench.student_meter),
        }

    def obtain(
        self,
        stage: str,
        key: str,
        compute: Callable[[Path], Mapping[str, Any] | None],
        *,
        label: str | None = None,
    ) -> Artifact:
        """Return a stage's artifact from the store, computing it first where it is missing.

        Args:
            stage: name of the stage, and of its folder in the store.
            key: content key.
            compute: writes the artifact's files into a folder, and returns what the manifest should say.
            label: how the line on the console calls it (default: the stage).
        """
        if (stage, key) in self._obtained:
            return self._obtained[stage, key]
        refresh = stage in self.bench.config.refresh
        with self.store.lock(stage, key):
            artifact = None if refresh else self.store.read(stage, key)
            reused = artifact is not None
            watch = Stopwatch.start(self.bench.device)
            if artifact is None:
                with self.store.write(stage, key) as draft:
                    draft.note(compute(draft.folder) or {})
                    draft.note(
                        {
                            "command": self.command,
                            "provenance": dict(self.provenance),
                            **watch.stop().as_dict(),
                        }
                    )
                artifact = self.store.read(stage, key)
                assert artifact is not None
        self._obtained[stage, key] = artifact
        self._report(label or stage, key, artifact, watch, reused=reused)
        return artifact

    def _report(self, label: str, key: str, artifact: Artifact, watch: Stopwatch, *, reused: bool) -> None:
        cost = watch.stop().as_dict()
        entry = {"stage": label, "key": key, "reused": reused, **cost}
        self.reports.append(entry)
        console.stage(label, "reused" if reused else "computed", cost["seconds"], cost["peak_mb"], key)
