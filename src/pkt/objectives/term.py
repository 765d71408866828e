"""What a term is, and what those of pkt share.

    needs -> View -> Sums (a sum, and what it is a sum over) -> the reducer of the training loop -> weight * mean

A term is a frozen dataclass of its own settings in a file of its own, and one YAML in conf/term.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pkt.late import Tensor, nn, torch
from pkt.objectives.needs import Need, States
from pkt.objectives.view import Pair, Sizes, Sums, View
from pkt.settings import Bounded, setting


@runtime_checkable
class Term(Protocol):
    """A part of the loss.

    Attributes:
        weight: what its mean is multiplied with; weights are never renormalised.
    """

    @property
    def weight(self) -> float:
        """What its mean is multiplied with."""
        ...

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it reads; `States` makes it a layer term."""
        ...

    def count(self, view: View) -> int:
        """Return how many positions (or sequences) the sum is over; the view has no states yet."""
        ...

    def modules(self, sizes: Sizes) -> nn.Module | None:
        """Make its parameters, which train too, and its buffers; neither is saved with the student."""
        ...

    def __call__(self, view: View) -> Sums:
        """Return its sums over the positions of a batch, of which there is at least one."""
        ...


def _decays(own: BaseTerm, _choice: object) -> bool:
    return own.decay != "constant"


@dataclass(frozen=True, kw_only=True)
class BaseTerm(Bounded):
    """A term over positions, without parameters of its own.

    Attributes:
        weight: above 0; of the term's mean over positions and layer pairs, so that a term over more pairs weighs no
            more.
        decay: how the weight falls from the first optimiser step to the last: ``constant``, ``linear`` or ``cosine``.
        decay_to: what is left of it at the last step, as a share.
    """

    weight: float = setting(1.0, above=0)
    decay: Literal["constant", "linear", "cosine"] = setting("constant", since="constant")
    decay_to: float = setting(0.0, at_least=0, at_most=1, when=_decays)

    def weight_at(self, progress: float) -> float:
        """Return the weight at some point of the training, 0 being its first optimiser step and 1 its last."""
        if self.decay == "constant":
            return self.weight
        left = 1.0 - progress if self.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.weight * (self.decay_to + (1.0 - self.decay_to) * left)

    def count(self, view: View) -> int:
        """Return the number of positions."""
        return view.count

    def modules(self, sizes: Sizes) -> nn.Module | None:
        """Return nothing: the term has no parameters."""
        return None


@dataclass(frozen=True, kw_only=True)
class LayerTerm(BaseTerm, ABC):
    """A term that compares states with targets, pair by pair.

    Attributes:
        positions: ``answer`` (those that predict an answer token) or ``all`` (every non-padding one).
    """

    positions: Literal["answer", "all"] = "all"

    @property
    def needs(self) -> tuple[Need, ...]:
        """States at its positions."""
        return (States(positions=self.positions),)

    @abstractmethod
    def pair_sum(self, pair: Pair, view: View) -> Tensor:
        """Return the sum of one pair, float32."""

    def __call__(self, view: View) -> Sums:
        """Return one sum per pair."""
        sums = [self.pair_sum(pair, view) for pair in view.pairs]
        return Sums(total=torch.stack(sums), count=self.count(view))
