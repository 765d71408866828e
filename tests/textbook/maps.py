"""Bases and maps through the vocabulary, by dense pseudoinverses; every state over all V tokens and back."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(rows: Tensor) -> Tensor:
    length = rows.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, rows / length.clamp_min(1e-30), 0.0)


def textbook_basis(weight: Tensor) -> Tensor:
    """Row i: column i of W^+, scaled to length 1."""
    return unit(torch.linalg.pinv(weight, rtol=1e-7).T)


def textbook_map(teacher: Tensor, student: Tensor) -> Tensor:
    count = min(len(teacher), len(student))
    return textbook_basis(student)[:count].T @ textbook_basis(teacher)[:count]


def recomposed(states: Tensor, teacher_basis: Tensor, student_basis: Tensor) -> Tensor:
    """h* = S_S a with a = S_T^T h / |h|: V coefficients per state."""
    count = min(len(teacher_basis), len(student_basis))
    return (unit(states) @ teacher_basis.T)[:, :count] @ student_basis[:count]
