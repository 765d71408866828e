"""W&B, offline unless asked otherwise. Whatever goes wrong with it is one warning; the run goes on.

Steps: every stage counts its own (`<stage>/step` is the axis of `<stage>/*`), because W&B drops a step that
goes back. One W&B run per pkt run; the jobs of a sweep share a group. A killed run's id is used again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pkt.config import TrackerConfig
from pkt.manifest import MANIFEST
from pkt.tracking.base import Record, TrackedArtifact
from pkt.tracking.jsonl import plain

log = logging.getLogger(__name__)

SMALL = 1 << 20  # bytes: larger JSON files stay at home


class WandbSink:
    """One W&B run; silent after its first failure.

    Args:
        settings: project, mode, and what is uploaded.
        run_dir: W&B's files go below it.
        run_id: of the W&B run.
        name: what a person reads.
        group: what the jobs of a sweep share.
        job_type: the verb.
        tags: words to filter runs by.
        continues: folder of the killed run that this one goes on from.
    """

    def __init__(
        self,
        settings: TrackerConfig,
        run_dir: Path,
        *,
        run_id: str,
        name: str,
        group: str,
        job_type: str,
        tags: Sequence[str],
        continues: Path | None = None,
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no network unless asked for
        os.environ.setdefault("WANDB_SILENT", "true")
        self._run: Any = None
        self._wandb: Any = None
        self._stages: dict[str, float] = {}
        self._settings = settings
        try:
            import wandb

            run_dir.mkdir(parents=True, exist_ok=True)  # W&B falls back to the system's temp folder otherwise
            self._wandb = wandb
            self._run = wandb.init(
                project=settings.project,
                id=run_id,
                # offline, the file of this run will hold the whole of it; a sync must not append it to another
                resume="allow" if continues and settings.mode == "online" else None,
                name=name,
                group=group,
                job_type=job_type,
                mode=cast(Literal["offline", "online"], settings.mode),
                tags=list(tags),
                dir=str(run_dir),
                reinit="finish_previous",
                # fresh settings each time: init writes into them, and the group would leak into the next run
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    x_disable_stats=True,
                    x_disable_meta=True,
                    disable_git=True,
                    disable_code=True,
                ),
            )
            if continues and settings.mode == "offline":
                _supersede(continues, run_id, self._run)
        except Exception as error:
            self._give_up(error)

    def take(self, kind: str, record: Record) -> None:
        """Hand one record to W&B."""
        if self._run is None:
            return
        try:
            getattr(self, f"_{kind}")(**record)
        except Exception as error:
            self._give_up(error)

    def close(self, exit_code: int) -> None:
        """Finish the run."""
        self.take("finish", {"exit_code": exit_code})
        self._run = None

    def _finish(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)

    def _config(self, values: Mapping[str, Any]) -> None:
        self._run.config.update(plain(values), allow_val_change=True)

    def _summary(self, values: Mapping[str, float]) -> None:
        self._run.summary.update(plain(values))

    def _metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log one step of a stage; a step that the service has already is not sent twice."""
        run, stage = self._run, next(iter(values)).partition("/")[0]
        if stage not in self._stages:
            known = run.summary.get(f"{stage}/step") if getattr(run, "resumed", False) else None
            self._stages[stage] = -1 if known is None else float(known)
            run.define_metric(f"{stage}/step", hidden=True)
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        if step > self._stages[stage]:
            run.log({f"{stage}/step": step, **values})

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table; cells are text where a column mixes types."""
        cells = [list(plain(row)) for row in rows]
        for index in range(len(columns)):
            if len({type(row[index]) for row in cells if row[index] is not None}) > 1:
                for row in cells:
                    row[index] = str(row[index])
        self._run.log({name: self._wandb.Table(columns=list(columns), data=cells)})

    def _figure(self, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Image(str(path))})

    def _page(self, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Html(path.read_text(encoding="utf-8"), inject=False)})

    def _artifact(self, item: TrackedArtifact) -> None:
        """Log a stage's result: an output of this run where it made it, an input where it reused it.

        Its name and content give the version, so that two runs with the same result show the same one; the key is
        its alias. The manifest and small JSON files go along, with `tracker.checkpoint` the weights too.
        """
        artifact = self._wandb.Artifact(
            item.name.replace("/", "-"),  # a plugin's names have a slash, W&B's must not
            type=item.kind,
            metadata=plain({**item.facts, "key": item.key, "inputs": item.inputs}),
        )
        with artifact.new_file(MANIFEST) as stream:
            stream.write(json.dumps(plain(item.content), indent=1, sort_keys=True))
        self._add_files(artifact, item)
        if item.made or not hasattr(self._run, "_log_artifact"):
            self._run.log_artifact(artifact, aliases=[item.key])
        else:
            # `use_artifact` refuses offline and waits for the upload online; this is the record that it writes
            self._run._log_artifact(artifact, aliases=[item.key], is_user_created=True, use_after_commit=True)

    def _add_files(self, artifact: Any, item: TrackedArtifact) -> None:
        """Add files by reference to where they lie: nothing is copied, and what is in the store does not change."""
        if item.folder is None:
            return
        for file in sorted(item.folder.glob("*.json")):
            if file.name != MANIFEST and file.stat().st_size <= SMALL:
                artifact.add_file(str(file), policy="immutable", skip_cache=True)
        if item.kind == "checkpoint" and self._settings.checkpoint:
            for part in ("model", "adapter"):
                if (item.folder / part).is_dir():
                    artifact.add_dir(str(item.folder / part), name=part, policy="immutable", skip_cache=True)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = next(iter(str(error).splitlines()), "")
        log.warning(
            "W&B is off for this run (%s: %s); metrics.jsonl has every number; tracker=none silences this",
            type(error).__name__,
            reason,
        )


def _supersede(earlier_dir: Path, run_id: str, run: Any) -> None:
    """Mark what the killed run left as synced: this run's own file holds all of it, from the first step on."""
    own = Path(run.dir).parent.resolve()
    for file in earlier_dir.glob(f"wandb/offline-run-*-{run_id}/*.wandb"):
        if file.parent.resolve() != own:
            file.with_name(f"{file.name}.synced").touch()
