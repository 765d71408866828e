"""What a run is about to do, in three lines, before it begins."""

from __future__ import annotations

from collections.abc import Mapping

from pkt import console
from pkt.config import SPLITS
from pkt.planner import Plan
from pkt.stages.session import Session


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
    doing = [step.name + (f" ({_steps(session)})" if step.stage == "transfer" else "") for step in fresh]
    reused = len(tuple(plan)) - len(fresh)
    parts = ([f"{reused} reused"] if reused else []) + ([f"to compute: {', '.join(doing)}"] if doing else [])
    console.note(f"{'stages':<11}{'; '.join(parts)}")


def _steps(session: Session) -> str:
    """Return how long a method trains, and how fast."""
    optim, method = session.bench.config.optim, session.method.name
    if optim.lr is None:
        return method
    length = f"{optim.steps:,} steps" if optim.steps else f"{optim.epochs} epochs"
    return f"{method}, {length} of {optim.batch_size} rows, lr {optim.lr:g}"
