"""Figures of a run, drawn with matplotlib's object interface (no global state, no display).

    plain data -> Drawing (a figure, and its content in words) -> save (PNG) | svg.inline (a page's SVG)

Use no colours but `INK`, `TEACHER`, `STUDENT`, `QUIET`, `MARK` and `RIVAL`: a page replaces each by one of its light or
dark theme.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LETTERS, _LINE = 12, 0.17  # of a heading: letters per inch, inches per line
_LEGEND = 0.15  # inches of a line of a legend
INK, TEACHER, STUDENT, QUIET = "#222222", "#3b6fb6", "#c4622d", "#c9ced6"
MARK, RIVAL = "#2f7d5b", "#8a559f"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with what it shows in words.

    Attributes:
        name: of its file and of its element on a page: lower case, digits, ``_``.
        title: one line above it.
        alt: what a reader who cannot see it should know.
        figure: matplotlib's.
        about: whose numbers it shows: the method or arm where there is one, the pair, and the benchmark.
    """

    name: str
    title: str
    alt: str
    figure: Figure
    about: str = ""

    @property
    def heading(self) -> str:
        """Its title, and whose numbers it shows."""
        return f"{self.title} · {self.about}" if self.about else self.title


def blank(width: float, height: float) -> Figure:
    """Return a figure of a size in inches with nothing on it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain_axes(axes: Any) -> None:
    """Leave out the frame above and at the right, and draw the rest in `INK`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)


def as_text(label: str) -> str:
    """Keep matplotlib from reading a label as mathematics."""
    return label.replace("$", r"\$")


def wrapped(label: str, width: int) -> str:
    """Return a label on as many lines as it needs: nothing of it is cut off.

    Args:
        label: broken after spaces and signs, or anywhere where a word is longer than a line.
        width: letters of a line.
    """
    lines = [""]
    for word in re.findall(rf"[^\s_,/]{{1,{width - 1}}}[\s_,/]?|[\s_,/]", label):
        if len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word if lines[-1] else word.lstrip()
    return "\n".join(line.rstrip() for line in lines)


def legend_columns(names: Iterable[str], letters: int) -> int:
    """Return how many columns a legend below the axes has: two where names are short.

    Args:
        names: one at least.
        letters: that a line of it has room for.
    """
    return 2 if max(map(len, names)) <= letters // 2 else 1


def legend_height(names: Collection[str], letters: int) -> float:
    """Return how many inches a legend takes below the axes, with whole names; see `legend_columns`."""
    lines = sum(1 + wrapped(name, letters).count("\n") for name in names)
    return _LEGEND * math.ceil(lines / legend_columns(names, letters))


def plain_logarithm(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers at 1, 2 and 5, and with nothing between."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def ticks(count: int, most: int = 16) -> list[int]:
    """Return the layers that an axis numbers: all, or the first and every fifth where there are many."""
    return [layer for layer in range(1, count + 1) if count <= most or layer % 5 == 0 or layer == 1]


def save(drawing: Drawing, folder: Path) -> Path:
    """Write a drawing as ``<name>.png`` into a folder, its heading above it, and return the file."""
    path, figure = folder / f"{drawing.name}.png", drawing.figure
    width, height = figure.get_size_inches()
    heading = wrapped(drawing.heading, int(_LETTERS * width))
    figure.set_size_inches(width, height + _LINE * (1 + heading.count("\n")))
    figure.suptitle(as_text(heading), fontsize=9, color=INK)
    figure.savefig(path, dpi=150)
    return path


def attribution_figure(scores: Sequence[float], chosen: Sequence[int]) -> Drawing:
    """Draw attribution per teacher layer, the chosen layers highlighted.

    Args:
        scores: one per teacher layer, from layer 1.
        chosen: teacher layers that were paired, from 1.
    """
    layers = range(1, len(scores) + 1)
    figure = blank(max(4.0, 0.28 * len(scores) + 2), 3.0)
    axes = figure.subplots()
    axes.bar(
        layers,
        scores,
        color=[TEACHER if layer in chosen else QUIET for layer in layers],
        hatch=["" if layer in chosen else "//" for layer in layers],
        edgecolor=INK,
        linewidth=0.6,
    )
    axes.set(xlabel="teacher layer", ylabel="attribution", title="attribution (plain bars: paired)")
    axes.set_xticks(ticks(len(scores)))
    axes.spines[["top", "right"]].set_visible(False)
    best = max(layers, key=lambda layer: scores[layer - 1])
    return Drawing(
        name="attribution",
        title="Attribution of the teacher's layers",
        alt=f"Bars of {len(scores)} teacher layers; the highest is layer {best}; paired: "
        + (", ".join(map(str, chosen)) or "none"),
        figure=figure,
    )


def pairing_figure(
    pairs: Sequence[tuple[int, Sequence[int]]], teacher_depth: int, student_depth: int
) -> Drawing:
    """Draw which teacher layers feed which student layers.

    Args:
        pairs: (student layer, its teacher layers), from 1.
        teacher_depth: number of teacher layers.
        student_depth: number of student layers.
    """
    figure = blank(max(4.0, 0.28 * teacher_depth + 2), 2.4)
    axes = figure.subplots()
    # both stacks span the same width, so that equal relative depth is a vertical line
    x_teacher = [layer / teacher_depth for layer in range(1, teacher_depth + 1)]
    x_student = [layer / student_depth for layer in range(1, student_depth + 1)]
    for student, teachers in pairs:
        for teacher in teachers:
            axes.plot([x_teacher[teacher - 1], x_student[student - 1]], [1, 0], color=INK, lw=1.2, zorder=1)
    axes.scatter(x_teacher, [1] * teacher_depth, color=TEACHER, s=90, zorder=2)
    axes.scatter(x_student, [0] * student_depth, color=STUDENT, s=90, marker="s", zorder=2)
    for x, y, depth, shift in ((x_teacher, 1, teacher_depth, 0.18), (x_student, 0, student_depth, -0.18)):
        for layer in ticks(depth):
            axes.annotate(str(layer), (x[layer - 1], y + shift), ha="center", va="center", fontsize=8)
    axes.set(
        yticks=[0, 1], yticklabels=["student", "teacher"], ylim=(-0.4, 1.4), xticks=[], title="layer pairs"
    )
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(left=False)
    words = "; ".join(f"{' and '.join(map(str, teachers))} to {student}" for student, teachers in pairs)
    return Drawing(
        name="pairing",
        title="Which teacher layers go to which student layers",
        alt=f"Teacher layers to student layers: {words or 'none'}",
        figure=figure,
    )
