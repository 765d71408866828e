"""What can be looked up where both models' files are here: the request's own rows, and the keys of its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omegaconf import DictConfig

from pkt.config import Config
from pkt.errors import PktError, RequestError
from pkt.planning.counted import assumed, counted, why_not
from pkt.planning.device import on_gpu
from pkt.planning.facts import Pair
from pkt.planning.rows import Counts

COMPUTED, REUSED, UNKNOWN = "computed", "reused", "not known"


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Rows, and what is in the store.

    Attributes:
        rows: counted or assumed.
        states: by the stage's name, whether its result is there; empty where keys are not known.
        keys: of the results, by the stage's name.
        told: how that is known, for the reader.
    """

    rows: Counts
    states: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    told: str

    def state(self, stage: str) -> str:
        """Return whether a stage would be computed or its result reused, or that this is not known."""
        return self.states.get(stage, UNKNOWN)


def look(cfg: DictConfig, config: Config, pair: Pair) -> Looked:
    """Look rows and keys up, as far as they can be had without weights.

    Raises:
        RequestError: the request itself is wrong.
    """
    if not pair.there:
        why = "the models' files are not here"
        return Looked(
            rows=assumed(config, pair, why),
            told=f"not known what would be reused: {why}, so no key can be made",
        )
    if config.device.startswith("cuda") and not on_gpu("auto"):
        why = f"device={config.device} is not on this machine"
        return Looked(rows=assumed(config, pair, why), told=f"not known what would be reused: {why}")
    from pkt.pipeline import request

    bench, method = request(cfg)
    try:
        rows = counted(bench)
    except PktError as error:
        if isinstance(error, RequestError):
            raise
        why = why_not(error)
        return Looked(rows=assumed(config, pair, why), told=f"not known what would be reused: {why}")
    if pair.chosen:
        why = "what the student keeps is chosen by importance, which takes the teacher's weights"
        return Looked(rows=rows, told=f"not known what would be reused: {why}")
    from pkt.pipeline import plan_scores
    from pkt.planner import Planner
    from pkt.stages.evaluate import asked
    from pkt.store import Store, store_root

    steps = plan_scores(Planner(bench=bench, method=method), asked(bench))
    store = Store(store_root(config.output_dir, config.store_dir))
    there = {
        step.name: step.stage not in config.refresh and store.path(step.stage, step.key).exists()
        for step in steps
    }
    return Looked(
        rows=rows,
        states={name: REUSED if found else COMPUTED for name, found in there.items()},
        keys={step.name: step.key for step in steps},
        told=f"reused: what {store.root} has under the keys of these results",
    )
