"""nano_code: write the line that a function returns from its signature and docstring (as in HumanEval).

The docstring tells the steps one by one. The answer merges them (`(x + 3) * 4 - 2` is written `x * 4 + 10`), so a model
has to work out an intermediate number that is never shown. Any body that computes the same passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from pkt.tasks.grading import Program
from pkt.tasks.nano.drafts import Draft, Drafter, NanoTask

_NAMES = ["adjust", "convert", "machine", "rule", "rescale", "change", "turn", "update", "encode", "mapping"]
_PROBES = (-11, -2, 0, 1, 3, 8, 26)
_WORDS: dict[str, tuple[str, ...]] = {
    "mul": ("multiply by {}", "scale by {}", "take it {} times"),
    "add": ("add {}", "increase by {}", "go up by {}"),
    "sub": ("subtract {}", "decrease by {}", "go down by {}"),
}
_SHAPES = (("add", "mul", "sub"), ("sub", "mul", "add"))
_BOUNDS = ((2, 9), (2, 9), (2, 9))
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
    """Draft a function of one integer that is described in three steps."""
    shape = rng.choice(_SHAPES)
    steps = [(step, rng.randint(*bounds)) for step, bounds in zip(shape, _BOUNDS, strict=True)]
    name = rng.choice(_NAMES)
    told = ", then ".join(rng.choice(_WORDS[step]).format(number) for step, number in steps)
    lead = rng.choice(("Start from x:", "Take x,", "With x:"))
    wanted = [run_steps(steps, probe) for probe in _PROBES]
    return Draft(
        prompt=f'def {name}(x):\n    """{lead} {told}."""\n    return',
        answer=f" {linear(steps)}",
        combo="code/" + "/".join(f"{step}{number}" for step, number in steps),
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
