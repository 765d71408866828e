"""Paired states of the align split, checked and summed over blocks of positions.

Shape suffixes: N positions (n of a block), D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pkt.errors import PktError, RequestError
from pkt.semantics.alignment import States
from pkt.semantics.basis import compute_device

BLOCK = 4096  # positions alive in float64 at once


def checked_states(states: States | None, name: str) -> States:
    """Return paired states if there are any.

    Args:
        states: teacher (N, D_T) and student (N, D_S).
        name: of the map that needs them.

    Raises:
        ValueError: no states, or not the same number on both sides.
        RequestError: no position in the align split.
    """
    if states is None:
        raise ValueError(f"semantics={name} is fitted on paired states; give states=(teacher, student)")
    teacher_ND, student_ND = states
    if len(teacher_ND) != len(student_ND):
        raise ValueError(
            f"states are paired: {len(teacher_ND)} teacher and {len(student_ND)} student positions differ"
        )
    if len(teacher_ND) == 0:
        raise RequestError(
            f"semantics={name} needs states; the align split has none: raise data.sizes.align."
        )
    return teacher_ND, student_ND


def mean_state(states_ND: Tensor) -> Tensor:
    """Return the mean over the positions, (D) float64 on the CPU."""
    total = torch.zeros(states_ND.shape[1], dtype=torch.float64)
    for block_nD in torch.split(states_ND, BLOCK):
        total += block_nD.to(compute_device(block_nD)).double().sum(0).cpu()
    return total / len(states_ND)


def moments(
    x_ND: Tensor, y_ND: Tensor, mean_x: Tensor | None, mean_y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return X^T X and X^T Y of the centred states (None: not centred), float64 on the CPU.

    Raises:
        PktError: states that are not finite.
    """
    device = compute_device(x_ND)
    xx = torch.zeros(x_ND.shape[1], x_ND.shape[1], dtype=torch.float64, device=device)
    xy = torch.zeros(x_ND.shape[1], y_ND.shape[1], dtype=torch.float64, device=device)
    for x_nD, y_nD in zip(torch.split(x_ND, BLOCK), torch.split(y_ND, BLOCK), strict=True):
        x, y = x_nD.to(device).double(), y_nD.to(device).double()
        x = x if mean_x is None else x - mean_x.to(device)
        y = y if mean_y is None else y - mean_y.to(device)
        xx += x.T @ x
        xy += x.T @ y
    if not (torch.isfinite(xx).all() and torch.isfinite(xy).all()):
        raise PktError(
            "the states of the align split hold NaN or infinity; load both models in float32 or bfloat16 "
            "(model.teacher.dtype, model.student.dtype)."
        )
    return xx.cpu(), xy.cpu()
