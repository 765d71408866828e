"""Maps that go on learning while the student trains: trained along with it, or fitted again from time to time.

    closed form ──> LearningMap: (N, D_T) -> (N, D_S) ──> targets of the next optimiser step
         ^                       └── change C: a parameter beside the student's (`trainable`)
         └── fitted again on the student as it is now (`refit`)

Shape suffixes: N positions, D width (D_T teacher, D_S student).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pkt.semantics.alignment import AlignmentMap
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


class LearningMap(nn.Module):
    """h* = (M + share C) (h - mean) [/ |h - mean|] + bias, from an `AlignmentMap`; C starts at zero.

    AdamW moves each entry of C by about the learning rate, however large its gradient is, so that `share` makes M as
    much slower; weight decay draws it to where it started, and not to zero. The mean and the bias do not train.
    """

    weight: Tensor
    bias: Tensor | None
    mean: Tensor | None

    def __init__(self, start: AlignmentMap, *, share: float | None) -> None:
        """Begin with a map.

        Args:
            start: the closed form.
            share: of the learning rate; None: nothing of it trains.
        """
        super().__init__()
        self.start, self.share = start, share
        for name in ("weight", "bias", "mean"):
            value = getattr(start, name)
            self.register_buffer(name, None if value is None else value.clone())
        self.change = None if share is None else nn.Parameter(torch.zeros_like(start.weight))

    @property
    def now(self) -> AlignmentMap:
        """The map as it is, through which a gradient reaches C."""
        weight = self.weight
        if self.change is not None and self.share is not None:
            weight = weight + self.share * self.change
        return replace(self.start, weight=weight, bias=self.bias, mean=self.mean)

    def forward(self, states_ND: Tensor) -> Tensor:
        """Map teacher states, (N, D_S) float32."""
        return self.now(states_ND)

    @torch.no_grad()
    def put(self, fitted: AlignmentMap) -> None:
        """Go on from another fit of the same strategy, in place."""
        for name, buffer in self.named_buffers():
            buffer.copy_(getattr(fitted, name))


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
