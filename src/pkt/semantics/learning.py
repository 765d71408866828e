"""Maps that go on learning while the student trains: trained along with it, or fitted again from time to time.

    closed form ──> LearningMap: (N, D_T) -> (N, D_S) ──> targets of the next optimiser step
         ^                       └── change C: a parameter beside the student's (`trainable`)
         └── fitted again on the student as it is now (`refit`)

Shape suffixes: N positions, D width (D_T teacher, D_S student).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pkt.settings import Bounded, setting

Refit = Literal["never", "epochs", "stages"]


def _trains(own: Trains, _choice: object) -> bool:
    return own.trainable


@dataclass(frozen=True, kw_only=True)
class Trains(Bounded):
    """What maps share that may be trained along with the student.

    Attributes:
        trainable: start from the closed form, and train.
        map_lr: by how much the map is slower than the student: its learning rate is this share of `optim.lr`.
    """

    trainable: bool = setting(False, since=False)
    map_lr: float = setting(0.1, at_least=0, decides="transfer", when=_trains)


def trains(semantics: object) -> bool:
    """Return whether a map is trained along with the student."""
    return isinstance(semantics, Trains) and semantics.trainable


def refits(semantics: object) -> Refit:
    """Return when a map is fitted again; maps that are fitted on nothing never are."""
    return getattr(semantics, "refit", "never")


def learns(semantics: object) -> bool:
    """Return whether a map changes during the training, so that the teacher's states have to be kept as they are."""
    return trains(semantics) or refits(semantics) != "never"


def closed_form(semantics: Any) -> Any:
    """Return the strategy that makes the same map and leaves it as it is."""
    own = {field.name: field.default for field in fields(semantics)}
    return replace(semantics, **{name: own[name] for name in ("refit", "trainable", "map_lr") if name in own})
