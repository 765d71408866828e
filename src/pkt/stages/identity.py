"""What a run's numbers are of, from the ingredients of its plan: its study and its arm.

    plan ──> study: teacher, student, test rows, how they are scored     (runs that can be compared)
         └─> arm:   all that made the student, its stages together       (runs that differ in their seed alone)

The seed is left out, and so is every setting that the request takes from it (``seed: ${seed}`` of a random control).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pkt.planner import Step
from pkt.stages.session import Session

SEED = "seed"
_OWN = ("stage", "inputs", "models")  # ingredients that an identity has in another form


def seeded(request: DictConfig) -> frozenset[str]:
    """Return the settings of a request that follow its seed, by their keys on the command line."""
    plain = OmegaConf.to_container(request, resolve=False)
    return frozenset({SEED, *(path for path, value in _leaves(plain) if value == f"${{{SEED}}}")})


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield path, node
        return
    for name, value in node.items():
        yield from _leaves(value, f"{path}.{name}" if path else str(name))


def study(session: Session) -> dict[str, Any]:
    """Return what runs have in common whose scores can be compared, JSON-like."""
    step = next(step for step in session.plan if step.stage == "eval")
    models = {role: session.bench.identity(role) for role in ("teacher", "student")}
    return models | dict(_ingredients(step, "eval", session.seeded))


def arm(session: Session) -> dict[str, Any]:
    """Return all that made the transferred student; nothing where none is scored."""
    if "eval transferred" not in session.plan:
        return {}
    scored = session.plan["eval transferred"]
    if not scored.takes:  # a saved folder, named by eval.checkpoint
        return {"checkpoint": scored.ingredients["models"]["scored"]}
    found: dict[str, Any] = {}
    for step in _chain(session, scored.takes):
        models = {f"{step.stage} {role}": key for role, key in step.ingredients["models"].items()}
        found |= models | dict(_ingredients(step, step.stage, session.seeded))
    return found


def _chain(session: Session, takes: tuple[str, ...]) -> Iterator[Step]:
    for name in takes:
        yield from _chain(session, session.plan[name].takes)
        yield session.plan[name]


def _ingredients(step: Step, stage: str, seeded: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield a step's ingredients by name: settings by their keys, the rest as ``transfer rows train``."""
    for kind, own in step.ingredients.items():
        if kind == "settings":
            yield from ((name, value) for name, value in own.items() if name not in seeded)
        elif kind not in _OWN:
            named = own.items() if isinstance(own, dict) else [("", own)]
            for name, value in named:
                yield f"{stage} {kind} {name}".rstrip(), _text(value)


def _text(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list | tuple) else value


def about(session: Session) -> str:
    """Return whose numbers a request's pictures show."""
    config = session.bench.config
    return f"{session.method.name}: {config.model.name} on {config.benchmark.name}"
