"""What a term is, and what those of pkt share.

    needs -> View -> Sums (a sum, and what it is a sum over) -> the reducer of the training loop -> weight * mean

A term is a frozen dataclass of its own settings in a file of its own, and one YAML in conf/term.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True, kw_only=True)
class BaseTerm(Bounded):
    """A term over positions, without parameters of its own.

    Attributes:
        weight: above 0.
    """

    weight: float = setting(1.0, above=0)

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
