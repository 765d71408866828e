"""Tell of settings that a command names and nothing in its request reads: one would think that they made a difference.

words -> keys; the plan's steps -> the settings that decide them -> those words that are in none
"""

from __future__ import annotations

from collections.abc import Mapping

from pkt import console
from pkt.methods.base import Method, choice_of
from pkt.methods.workbench import Workbench
from pkt.planner import Plan
from pkt.settings import is_idle
from pkt.stages.session import Session
from pkt.surroundings import asked

_SCORES = "eval"
_NODES = ("mapping", "semantics", "objective", "answer", "capture", "optim", _SCORES)
"""Parts of a request that not every method reads; `method` is another's where its settings are others."""


def tell(session: Session, plan: Plan) -> None:
    """Warn of the words that decide nothing, all in one line.

    Args:
        session: the request.
        plan: its steps; where none is a score, nothing is said of the settings of scores.
    """
    if idle := unread(session.bench, session.method, plan, asked()):
        console.warn(
            f"nothing here reads {', '.join(idle)}: the result is the same without (method={session.method.name}, "
            "the other settings as they are)"
        )


def unread(bench: Workbench, method: Method, plan: Plan, words: Mapping[str, str]) -> list[str]:
    """Return the words whose settings are in no key of a plan's steps, and do nothing else.

    Args:
        bench: models, rows and strategies of the request.
        method: what is run.
        plan: the request's steps.
        words: by the key of what they set.
    """
    read = {key for step in plan for key in step.ingredients.get("settings", {})}
    scored = any(step.stage == _SCORES for step in plan)
    roots = {"method": method, **vars(choice_of(bench))}
    found = []
    for key, word in words.items():
        top, *rest = key.split(".")
        if top not in (*_NODES, "method") or key == "method" or (top == _SCORES and not scored):
            continue
        is_read = any(f"{own}.".startswith(f"{key}.") or f"{key}.".startswith(f"{own}.") for own in read)
        root = roots.get(top, getattr(bench.config, top))
        if not is_read and is_idle(root, rest):
            found.append(word)
    return found
