"""nano_code: write the line that a function returns from its signature and docstring (as in HumanEval).

The docstring tells the steps one by one. The answer merges them (`(x + 3) * 4` is written `x * 4 + 12`), so a model has
to work out an intermediate number that is never shown. Any body that computes the same passes.
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
    "cap": ("keep it at most {}", "cap it at {}"),
    "floor": ("keep it at least {}", "raise it to {} if lower"),
}
_SHAPES = (
    ("add", "mul"), ("sub", "mul"), ("add", "mul"), ("sub", "mul"), ("mul", "mul"), ("add", "add"),
    ("sub", "sub"), ("mul", "add"), ("mul", "sub"), ("add", "add", "cap"), ("mul", "mul", "floor"),
    ("mul", "add", "add"),
)  # fmt: skip
Step = tuple[str, int]


def run_steps(steps: list[Step], value: int) -> int:
    """Apply the steps one after the other; the results are what the hidden tests expect."""
    for name, number in steps:
        if name == "mul":
            value *= number
        elif name == "cap":
            value = min(value, number)
        elif name == "floor":
            value = max(value, number)
        else:
            value += number if name == "add" else -number
    return value


def linear(steps: list[Step]) -> str:
    """Write linear steps as one expression in `x`, constants merged."""
    shift = run_steps(steps, 0)
    factor = run_steps(steps, 1) - shift
    text = "x" if factor == 1 else f"x * {factor}"
    if shift:
        text += f" + {shift}" if shift > 0 else f" - {-shift}"
    return text


def _body(steps: list[Step]) -> str:
    name, number = steps[-1]
    if name not in ("cap", "floor"):
        return linear(steps)
    return f"{'min' if name == 'cap' else 'max'}({linear(steps[:-1])}, {number})"


def _draw_steps(rng: Random) -> list[Step]:
    shape = rng.choice(_SHAPES)
    return [(name, rng.randint(2, 9) if name == "mul" else rng.randint(1, 12)) for name in shape]


def function(rng: Random) -> Draft:
    """Draft a function of one integer that is described in two or three steps."""
    steps = _draw_steps(rng)
    while abs(run_steps(steps, 0)) > 99 or run_steps(steps, 0) == run_steps(steps, 1) == run_steps(steps, -9):
        steps = _draw_steps(rng)
    name = rng.choice(_NAMES)
    told = ", then ".join(rng.choice(_WORDS[step]).format(number) for step, number in steps)
    lead = rng.choice(("Start from x:", "Take x,", "With x:"))
    wanted = [run_steps(steps, probe) for probe in _PROBES]
    return Draft(
        prompt=f'def {name}(x):\n    """{lead} {told}."""\n    return',
        answer=f" {_body(steps)}",
        combo="code/" + "/".join(f"{step}{number}" for step, number in steps),
        extras={
            "entry_point": name,
            "test": f"assert [{name}(x) for x in {_PROBES}] == {wanted}\n",
        },
    )


@dataclass(frozen=True, kw_only=True)
class Functions(NanoTask):
    """The task."""

    version = 1
    gradings = (Program(until=("\n\n",), new_tokens=32),)
    drafter: ClassVar[Drafter] = staticmethod(function)
    tests = 500
