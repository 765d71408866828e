"""What a probe found out about a loaded model: named checks, each with its number.

Probe.check("mlp").holds -> True | False | None (could not be tried)      Probe.require("mlp") -> refuses by name
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.errors import RequestError

INTERFACES = ("block", "residual", "mlp", "attention")  # as `pkt.models.taps.Interface`, the surest first


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that pkt relies on, or a feature needs, tried on the model itself.

    Attributes:
        name: what is checked.
        holds: whether it does; None: it could not be tried, or this model has no such part.
        number: how far off it is, or what was counted.
        sentence: what was found, and what to do where it does not hold.
    """

    name: str
    holds: bool | None
    number: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """All checks of one model.

    Attributes:
        model_type: the architecture's name.
        checks: in the order in which they are shown.
        bound: layers that need more of those below them than the states that leave them (borrowed keys and values):
            a pass may start at no cut below such a layer.
    """

    model_type: str
    checks: tuple[Check, ...]
    bound: tuple[int, ...] = ()

    def check(self, name: str) -> Check:
        """Return a check by its name."""
        return next(check for check in self.checks if check.name == name)

    def starts_at(self, layer: int) -> bool:
        """Return whether a pass may start at a layer, from the states that enter it."""
        return self.check("start").holds is not None and all(number < layer for number in self.bound)

    def require(self, name: str) -> None:
        """Refuse what needs a check that does not hold; one that could not be tried is no reason.

        Raises:
            RequestError: it does not hold.
        """
        if (check := self.check(name)).holds is False:
            raise RequestError(f"this {self.model_type} model: {check.sentence}")

    def require_interface(self, name: str) -> None:
        """Refuse a supervision interface that this architecture does not have.

        Raises:
            RequestError: it does not, with those that it has.
        """
        if (check := self.check(name)).holds is False:
            others = [other for other in INTERFACES if self.check(other).holds]
            remedy = f"use method.interface={' or '.join(others)}" if others else "it has no other either"
            raise RequestError(
                f"this {self.model_type} model has no interface {name} that pkt can use: {check.sentence}; {remedy}."
            )
