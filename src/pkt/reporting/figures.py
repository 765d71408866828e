"""Figures of a run, drawn with matplotlib's object interface (no global state, no display)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

INK, TEACHER, STUDENT, QUIET = "#222222", "#3b6fb6", "#c4622d", "#c9ced6"


def attribution_figure(scores: Sequence[float], chosen: Sequence[int], path: Path) -> Path:
    """Draw attribution per teacher layer, the chosen layers highlighted.

    Args:
        scores: one per teacher layer, from layer 1.
        chosen: teacher layers that were paired, from 1.
        path: PNG to write.
    """
    layers = range(1, len(scores) + 1)
    figure = Figure(figsize=(max(4.0, 0.28 * len(scores) + 2), 3.0), layout="constrained")
    axes = figure.subplots()
    axes.bar(layers, scores, color=[TEACHER if layer in chosen else QUIET for layer in layers])
    axes.set(xlabel="teacher layer", ylabel="attribution", title="gradient × activation (blue: paired)")
    axes.set_xticks([layer for layer in layers if len(scores) <= 16 or layer % 5 == 0 or layer == 1])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return path


def pairing_figure(
    pairs: Sequence[tuple[int, Sequence[int]]], teacher_depth: int, student_depth: int, path: Path
) -> Path:
    """Draw which teacher layers feed which student layers.

    Args:
        pairs: (student layer, its teacher layers), from 1.
        teacher_depth: number of teacher layers.
        student_depth: number of student layers.
        path: PNG to write.
    """
    figure = Figure(figsize=(max(4.0, 0.28 * teacher_depth + 2), 2.4), layout="constrained")
    axes = figure.subplots()
    # both stacks span the same width, so that equal relative depth is a vertical line
    x_teacher = [_relative(layer, teacher_depth) for layer in range(1, teacher_depth + 1)]
    x_student = [_relative(layer, student_depth) for layer in range(1, student_depth + 1)]
    for student, teachers in pairs:
        for teacher in teachers:
            axes.plot([x_teacher[teacher - 1], x_student[student - 1]], [1, 0], color=INK, lw=1.2, zorder=1)
    axes.scatter(x_teacher, [1] * teacher_depth, color=TEACHER, s=90, zorder=2)
    axes.scatter(x_student, [0] * student_depth, color=STUDENT, s=90, zorder=2)
    for x, y, depth, shift in ((x_teacher, 1, teacher_depth, 0.16), (x_student, 0, student_depth, -0.16)):
        for layer in range(1, depth + 1):
            if depth <= 16 or layer % 4 == 0 or layer == 1:
                axes.annotate(str(layer), (x[layer - 1], y + shift), ha="center", va="center", fontsize=8)
    axes.set(
        yticks=[0, 1], yticklabels=["student", "teacher"], ylim=(-0.4, 1.4), xticks=[], title="Layer pairs"
    )
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.savefig(path, dpi=150)
    return path


def _relative(layer: int, depth: int) -> float:
    return layer / depth
