"""How settings are chosen: the same number of trials for every method, then more seeds of what was chosen.

    TRIALS: method -> two axes of words -> a Group per method with a Cell per trial -> Plan
    FINALISTS at each of FINAL_STEPS -> a Group per number of steps -> Plan

All is scored on validation rows.

What was chosen stands in conf/, and every other target reads it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from paper.plans import NANO, OWN, Cell, Group, Plan, grouped
from pkt.errors import RequestError

COUNT = 8  # trials of each method
ON_VALIDATION = ("eval.split=validation", "eval.models=[transferred]", "optim.validate_every=0")

Axis = tuple[str, ...]  # words; `a=1 b=2` are two of one trial
_WEIGHT = "objective.terms.layer.weight"
_RATES: Axis = ("optim.lr=5e-4", "optim.lr=1e-3", "optim.lr=2e-3", "optim.lr=3e-3")
_ADAPTER_RATES: Axis = ("optim.lr=1e-3", "optim.lr=2e-3", "optim.lr=5e-3", "optim.lr=1e-2")
_SMALL: Axis = tuple(f"{_WEIGHT}={weight}" for weight in (0.03, 0.1, 0.3, 1))
_LARGE: Axis = tuple(f"{_WEIGHT}={weight}" for weight in (3, 9, 30, 100))
_STEPS: Axis = ("optim.steps=500", "optim.steps=1000")
TRIALS: Mapping[str, tuple[Axis, Axis]] = {
    "sft": (_RATES, _STEPS),
    "seqkd": (_RATES, _STEPS),
    "kd": (
        tuple(f"objective.terms.kl.weight={weight}" for weight in (0.5, 2)),
        tuple(
            f"objective.terms.kl.temperature={tau} optim.lr={rate}"
            for tau in (1, 2)
            for rate in ("1e-3", "2e-3")
        ),
    ),
    "hidden_kd": (_LARGE, ("optim.lr=1e-3", "optim.lr=2e-3")),
    "pissa": (_ADAPTER_RATES, _STEPS),
    "seeking": (_ADAPTER_RATES, _STEPS),
    "laten": (
        ("method.steps=4", "method.steps=30"),
        ("method.penalty=1000", "method.penalty=100", "method.penalty=10", "method.penalty=1"),
    ),
    "semalign": (
        ("optim.lr=3e-6", "optim.lr=1e-5", "optim.lr=3e-5", "optim.lr=1e-4"),
        ("optim.steps=40", "optim.steps=80"),
    ),
    "semalign_fisher": (_SMALL, ("method.frontier.output_at=all", "method.schedule=joint")),
    "semalign_geometry": (_SMALL, ("method.schedule=frontier", "method.schedule=joint")),
    "semalign_joint": (
        (f"{_WEIGHT}=9", f"{_WEIGHT}=30"),
        tuple(
            f"semantics={semantics} objective.terms.layer.decay={decay}"
            for semantics in ("ridge_refit", "ridge_trained")
            for decay in ("constant", "linear")
        ),
    ),
}

FINALISTS = ("sft", "seqkd", "kd", "hidden_kd", "semalign_fisher", "semalign_geometry", "semalign_joint")
FINAL_STEPS = (500, 1000)


def settings(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the trials of every method.

    Raises:
        RequestError: the trials are made for the nano family.
    """
    _check(pair)
    groups = [Group(title=method, pair=pair, cells=tuple(_trials(method))) for method in TRIALS]
    lead = (
        f"{COUNT} trials of each method, one student on all tasks together, scored on validation rows. They "
        "were made after the presets were chosen by such trials; where another setting is ahead here, the preset stays."
    )
    return grouped("settings", pair, f"Trials of settings, {pair}", groups, seeds, lead)


def finals(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs that decide between forms: chosen settings, two numbers of steps, more seeds.

    Raises:
        RequestError: see `settings`.
    """
    _check(pair)
    groups = [
        Group(
            title=f"{steps:,} steps",
            pair=pair,
            at=steps,
            cells=tuple(
                Cell(method=method, words=(f"method={method}", f"optim.steps={steps}", *ON_VALIDATION))
                for method in FINALISTS
            ),
        )
        for steps in FINAL_STEPS
    ]
    lead = "Every method at its preset, one student on all tasks together, scored on validation rows."
    return grouped("finals", pair, f"Chosen settings on validation rows, {pair}", groups, seeds, lead)


def _check(pair: str) -> None:
    if OWN.get(pair) != NANO:
        allowed = ", ".join(name for name, words in OWN.items() if words == NANO)
        raise RequestError(f"settings are tried on nano's rows, which {pair} does not have; take {allowed}.")


def _trials(method: str) -> list[Cell]:
    return [
        Cell(method=method, words=(f"method={method}", *own, *ON_VALIDATION), form=" ".join(own))
        for own in (tuple(f"{one} {other}".split()) for one, other in product(*TRIALS[method]))
    ]
