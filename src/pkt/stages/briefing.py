"""What a run is about to do, in three lines, before it begins."""

from __future__ import annotations

from collections.abc import Mapping

from pkt import console
from pkt.config import SPLITS
from pkt.planner import Plan, Step
from pkt.stages.session import Session

_EACH = {"tokens_per_batch": "tokens", "batch_size": "rows"}  # of an optimiser step


def tell(session: Session, plan: Plan, scored: Mapping[str, int]) -> None:
    """Print pair, rows and stages of a run.

    Args:
        session: the request.
        plan: its steps.
        scored: rows to score, by task.
    """
    bench, config = session.bench, session.bench.config
    sizes = {role: bench.outline(role) for role in ("teacher", "student")}
    teacher, student = (f"{own.num_hidden_layers} layers of {own.hidden_size}" for own in sizes.values())
    console.note(f"{'pair':<11}{config.model.name}: teacher of {teacher}, student of {student}")
    rows = [f"{len(bench.splits[split]):,} {split}" for split in SPLITS]
    limit = config.eval.limit
    counts = [min(count, limit) if limit else count for count in scored.values()]
    tested = f"{sum(counts):,} to score ({', '.join(scored)})" if any(counts) else ", ".join(scored)
    console.note(f"{'rows':<11}{', '.join(rows)}; {tested}")
    fresh = [
        step
        for step in plan
        if step.stage in config.refresh or not session.store.path(step.stage, step.key).exists()
    ]
    doing = [
        step.name + (f" ({_training(session.method.name, step)})" if step.stage == "transfer" else "")
        for step in fresh
    ]
    reused = len(tuple(plan)) - len(fresh)
    parts = ([f"{reused} reused"] if reused else []) + ([f"to compute: {', '.join(doing)}"] if doing else [])
    console.note(f"{'stages':<11}{'; '.join(parts)}")


def _training(method: str, step: Step) -> str:
    """Return who trains, how long, on how much at once and how fast, of what the step reads."""
    own = {key.removeprefix("optim."): value for key, value in step.ingredients["settings"].items() if value}
    told = [f"{own[name]:,} {name}" for name in ("steps", "epochs") if name in own][:1]
    told += [f"{own[name]:,} {unit} each" for name, unit in _EACH.items() if name in own][:1]
    told += [f"lr {own['lr']:g}"] if "lr" in own else []
    return ", ".join([method, *told])
