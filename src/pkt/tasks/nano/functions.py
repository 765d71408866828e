"""nano_code: write the line that a function returns from its signature and docstring (as in HumanEval).

The docstring tells two steps, and the second multiplies by the rate of a town that is told by a person. The answer
merges them (`(x + 3)` times a rate of 4 is written `x * 4 + 12`), so a model has to look up a number that is never
shown, and to reckon with it. Any body that computes the same passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pkt.tasks.grading import Program
from pkt.tasks.nano.drafts import Draft, Drafter, NanoTask
from pkt.tasks.nano.world import number_after_two_hops, somebody

_NAMES = ["adjust", "convert", "machine", "rule", "rescale", "change", "turn", "update", "encode", "mapping"]
_PROBES = (-11, -2, 0, 1, 3, 8, 26)
_WORDS: dict[str, tuple[str, ...]] = {
    "add": ("add {}", "increase by {}", "go up by {}"),
    "sub": ("subtract {}", "decrease by {}", "go down by {}"),
    "mul": ("multiply by the rate where {n} {verb}", "scale by the rate of the town where {n} {verb}"),
}
Step = tuple[str, int]


def run_steps(steps: list[Step], value: int) -> int:
    """Apply the steps one after the other; the results are what the hidden tests expect."""
    for name, number in steps:
        if name == "mul":
            value *= number
        else:
            value += number if name == "add" else -number
    return value


def linear(steps: list[Step]) -> str:
    """Write steps as one expression in `x`, constants merged."""
    shift = run_steps(steps, 0)
    factor = run_steps(steps, 1) - shift
    text = "x" if factor == 1 else f"x * {factor}"
    if shift:
        text += f" + {shift}" if shift > 0 else f" - {-shift}"
    return text


def function(rng: Random) -> Draft:
    """Draft a function of one integer that is described in two steps."""
    person, relation, verb = somebody(rng)
    step, number = rng.choice(("add", "sub")), rng.randint(2, 5)
    steps = [(step, number), ("mul", number_after_two_hops(person, relation, "rate"))]
    name = rng.choice(_NAMES)
    first, last = (
        rng.choice(_WORDS[step]).format(number),
        rng.choice(_WORDS["mul"]).format(n=person, verb=verb),
    )
    lead = rng.choice(("Start from x:", "Take x,", "With x:"))
    wanted = [run_steps(steps, probe) for probe in _PROBES]
    return Draft(
        prompt=f'def {name}(x):\n    """{lead} {first}, then {last}."""\n    return',
        answer=f" {linear(steps)}",
        combo=f"code/{person}/{relation}/{step}{number}",
        extras={
            "entry_point": name,
            "test": f"assert [{name}(x) for x in {_PROBES}] == {wanted}\n",
        },
    )


@dataclass(frozen=True, kw_only=True)
class Functions(NanoTask):
    """The task."""

    version = 2
    gradings = (Program(until=("\n\n",), new_tokens=32),)
    drafter: ClassVar[Drafter] = staticmethod(function)
