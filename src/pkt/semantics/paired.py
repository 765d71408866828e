"""Paired states of the align split, checked and summed over blocks of positions.

Shape suffixes: N positions (n of a block), D width (D_T teacher, D_S student).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pkt.errors import PktError, RequestError
from pkt.late import Tensor, torch
from pkt.models.precision import compute_device, doubled
from pkt.semantics.alignment import AlignmentMap, HeadView, States
from pkt.semantics.learning import Refit
from pkt.semantics.massive import BLOCK, MASSIVE, without_massive
from pkt.settings import Bounded, setting


@dataclass(frozen=True, kw_only=True)
class Fitted(Bounded, ABC):
    """What maps share that are fitted on paired states.

    Attributes:
        intercept: centre both sides, and add the student's mean.
        massive: leave positions out whose state, of teacher or student, is longer than so many medians (`massive.py`);
            None: none.
        refit: when the map is fitted again on the states of the student as it is by then: ``never``, at the end of all
            ``epochs`` but the last, or before each of the ``stages`` of a frontier.
    """

    needs_states: ClassVar[bool] = True
    reads_out: ClassVar[bool] = True

    intercept: bool = True
    massive: float | None = setting(MASSIVE, above=1)
    refit: Refit = setting("never", since="never")

    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Return the map, on the device of the teacher's head."""
        return self.fitted(states, teacher.weight.device)

    @abstractmethod
    def fitted(self, states: States | None, device: torch.device) -> AlignmentMap:
        """Return the map that paired states alone decide, on a device; it raises what `moments` raises."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over N paired positions, X the teacher's states and Y the student's; float64 where X is.

    Attributes:
        name: of the map that is fitted on them.
        states: X and Y.
        left_out: how many positions are not among them, because a state is massive.
        massive: what that means.
        xx_DD: X^T X, centred if the means are there.
        xy_DD: X^T Y, the same.
        mean_x, mean_y: means over the positions; None: not centred.
    """

    name: str
    states: States
    left_out: int
    massive: float | None
    xx_DD: Tensor
    xy_DD: Tensor
    mean_x: Tensor | None
    mean_y: Tensor | None

    @property
    def count(self) -> int:
        """N."""
        return len(self.states[0])

    def blocks(self) -> Iterator[States]:
        """Yield X and Y in blocks of positions, float64, centred if the means are there."""
        yield from _blocks(self.states, self.mean_x, self.mean_y)

    def map(self, weight_DD: Tensor, device: torch.device, **info: float | int) -> AlignmentMap:
        """Return h* = M (h - mean_x) + mean_y on a device; info: positions, left_out, and what is given."""
        return AlignmentMap(
            weight=weight_DD.float().contiguous().to(device),
            bias=None if self.mean_y is None else self.mean_y.float().to(device),
            mean=None if self.mean_x is None else self.mean_x.float().to(device),
            name=self.name,
            info={"positions": self.count, "left_out": self.left_out, **info},
            massive=self.massive,
        )


def moments(states: States | None, name: str, *, centred: bool, massive: float | None = MASSIVE) -> Moments:
    """Sum paired states at the positions that are ordinary on both sides.

    Args:
        states: teacher (N, D_T) and student (N, D_S).
        name: of the map that needs them.
        centred: take the means off first.
        massive: see `pkt.semantics.massive.ordinary`.

    Raises:
        ValueError: no states, or not the same number on both sides.
        RequestError: no position in the align split.
        PktError: states that are not finite.
    """
    if states is None:
        raise ValueError(f"semantics={name} is fitted on paired states; give states=(teacher, student)")
    x_ND, y_ND = states
    if len(x_ND) != len(y_ND):
        raise ValueError(f"states are paired: {len(x_ND)} teacher and {len(y_ND)} student positions differ")
    if len(x_ND) == 0:
        raise RequestError(
            f"semantics={name} needs states; the align split has none: raise data.sizes.align."
        )
    states, left_out = without_massive(states, massive)
    mean_x, mean_y = (_mean(side_ND) if centred else None for side_ND in states)
    device = compute_device(x_ND)
    xx = torch.zeros(x_ND.shape[1], x_ND.shape[1], dtype=torch.float64, device=device)
    xy = torch.zeros(x_ND.shape[1], y_ND.shape[1], dtype=torch.float64, device=device)
    for x, y in _blocks(states, mean_x, mean_y):
        xx += x.T @ x
        xy += x.T @ y
    if not (torch.isfinite(xx).all() and torch.isfinite(xy).all()):
        raise PktError(
            "the states of the align split hold NaN or infinity; load both models in float32 or bfloat16 "
            "(model.teacher.dtype, model.student.dtype)."
        )
    return Moments(
        name=name,
        states=states,
        left_out=left_out,
        massive=massive,
        xx_DD=xx,
        xy_DD=xy,
        mean_x=mean_x,
        mean_y=mean_y,
    )


def _blocks(states: States, mean_x: Tensor | None, mean_y: Tensor | None) -> Iterator[States]:
    device = compute_device(states[0])
    for x_nD, y_nD in zip(*(torch.split(side, BLOCK) for side in states), strict=True):
        x, y = x_nD.to(device).double(), y_nD.to(device).double()
        x = x if mean_x is None else x - mean_x.to(device)
        y = y if mean_y is None else y - mean_y.to(device)
        yield x, y


def _mean(states_ND: Tensor) -> Tensor:
    total = torch.zeros(states_ND.shape[1], dtype=torch.float64)
    for block_nD in torch.split(states_ND, BLOCK):
        total += doubled(block_nD).sum(0).cpu()
    return total / len(states_ND)
