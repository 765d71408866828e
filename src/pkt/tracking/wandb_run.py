"""W&B, offline unless asked otherwise. Whatever goes wrong with it is one warning; the run goes on.

Steps: every stage counts its own (`<stage>/step` is the axis of `<stage>/*`), because W&B drops a step that
goes back. One W&B run per pkt run; the jobs of a sweep share a group. A killed run's id is used again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pkt.config import TrackerConfig
from pkt.tracking.base import TrackedArtifact
from pkt.tracking.jsonl import plain

log = logging.getLogger(__name__)

SMALL = 1 << 20  # bytes: larger JSON files stay at home
MANIFEST = "manifest.json"


class WandbTracker:
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
        tags: Sequence[str] = (),
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
                # offline, the file that follows tells the whole run; a sync must not append it to another
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

    def config(self, values: Mapping[str, Any]) -> None:
        """Take the resolved request."""
        self._tell(lambda run: run.config.update(plain(values), allow_val_change=True))

    def log(self, metrics: Mapping[str, float], step: int, stage: str) -> None:
        """Take metrics of one step; a step that the service has already is not told twice."""

        def send(run: Any) -> None:
            if stage not in self._stages:
                known = run.summary.get(f"{stage}/step") if getattr(run, "resumed", False) else None
                self._stages[stage] = -1 if known is None else float(known)
                run.define_metric(f"{stage}/step", hidden=True)
                run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            if step > self._stages[stage]:
                values = {f"{stage}/{name}": value for name, value in metrics.items()}
                run.log({f"{stage}/step": step} | values)

        self._tell(send)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Take a table; cells are text where a column mixes types."""
        cells = [list(plain(row)) for row in rows]
        for index in range(len(columns)):
            if len({type(row[index]) for row in cells if row[index] is not None}) > 1:
                for row in cells:
                    row[index] = str(row[index])
        self._tell(lambda run: run.log({name: self._wandb.Table(columns=list(columns), data=cells)}))

    def figure(self, name: str, path: Path) -> None:
        """Take a picture file."""
        self._tell(lambda run: run.log({name: self._wandb.Image(str(path))}))

    def summary(self, values: Mapping[str, float]) -> None:
        """Take the run's final numbers."""
        self._tell(lambda run: run.summary.update(plain(values)))

    def artifact(self, item: TrackedArtifact) -> None:
        """Take a stage's result: an output of this run where it made it, an input where it reused it.

        Its name and content give the version, so that two runs with the same result show the same one; the key is
        its alias. The manifest and small JSON files go along, with `tracker.checkpoint` the weights too.
        """

        def send(run: Any) -> None:
            artifact = self._wandb.Artifact(
                item.name.replace("/", "-"),  # a plugin's names have a slash, W&B's must not
                type=item.kind,
                metadata=plain({**item.facts, "key": item.key, "inputs": item.inputs}),
            )
            with artifact.new_file(MANIFEST) as stream:
                stream.write(json.dumps(plain(item.content), indent=1, sort_keys=True))
            self._add_files(artifact, item)
            if item.made or not hasattr(run, "_log_artifact"):
                run.log_artifact(artifact, aliases=[item.key])
            else:
                # `use_artifact` refuses offline and waits for the upload online; this is the record that it writes
                run._log_artifact(artifact, aliases=[item.key], is_user_created=True, use_after_commit=True)

        self._tell(send)

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

    def page(self, name: str, path: Path) -> None:
        """Take an HTML file."""
        self._tell(
            lambda run: run.log({name: self._wandb.Html(path.read_text(encoding="utf-8"), inject=False)})
        )

    def close(self, exit_code: int = 0) -> None:
        """Finish the run."""
        self._tell(lambda run: run.finish(exit_code=exit_code))
        self._run = None

    def _tell(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        reason = next(iter(str(error).splitlines()), "")
        log.warning(
            "W&B is off for this run (%s: %s); metrics.jsonl has every number; tracker=none silences this",
            type(error).__name__,
            reason,
        )


def _supersede(earlier_dir: Path, run_id: str, run: Any) -> None:
    """Mark what the killed run left as synced: this run's own file tells all of it, from the first step on."""
    own = Path(run.dir).parent.resolve()
    for file in earlier_dir.glob(f"wandb/offline-run-*-{run_id}/*.wandb"):
        if file.parent.resolve() != own:
            file.with_name(f"{file.name}.synced").touch()
