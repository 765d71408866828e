"""The drawings of `pkt analyze`: a part's plain data in, drawings out.

Series differ in marker and line as well as in colour; heat maps have one scale for all (0 to 1), and numbers in
their cells where there are few layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pkt.reporting.figures import (
    INK,
    MARK,
    QUIET,
    STUDENT,
    TEACHER,
    Drawing,
    as_text,
    blank,
    plain_axes,
    plain_logarithm,
    ticks,
    wrapped,
)
from pkt.reporting.layer_tables import (
    BASES,
    MAP_MEASURES,
    matrices,
    matrix_title,
    mean_over_pairs,
    measured,
    pairs_of,
    rows_of,
    value,
)

NUMBERS = 12  # layers up to which a heat map's cells carry their numbers
ROLES = {"teacher": TEACHER, "student": STUDENT, "transferred": MARK}
LINES = {
    "output": {"color": TEACHER, "marker": "o", "linestyle": "-"},
    "input": {"color": STUDENT, "marker": "s", "linestyle": "--"},
    "random": {"color": MARK, "marker": "^", "linestyle": ":"},
}
# numbers stand on the colour of a cell, which is the same in both themes of a page; so a page must not replace these
ON_DARK, ON_LIGHT = "#fdfdfd", "#0d0d0d"


def resolution_figures(data: Mapping[str, Any]) -> list[Drawing]:
    """Draw cosine(S Sᵀ r, r) over the layers of each model, with a band of one standard error.

    The thin lines are what a random state would score.
    """
    models = data["models"]
    figure = blank(5.2, 2.9 * len(models) + 0.4)
    panels = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for axes, (role, model) in zip(panels, models.items(), strict=True):
        layers = range(1, model["depth"] + 1)
        for name, style in LINES.items():
            basis = model["bases"][name]
            axes.plot(layers, basis["cosine"], label=BASES[name], markersize=4, linewidth=1.6, **style)
            if basis["cosine_stderr"]:
                ends = zip(basis["cosine"], basis["cosine_stderr"], strict=True)
                low, high = zip(*((mean - error, mean + error) for mean, error in ends), strict=True)
                axes.fill_between(layers, low, high, color=style["color"], alpha=0.25, linewidth=0)
            axes.axhline(basis["typical"], color=style["color"], linewidth=0.7, linestyle=style["linestyle"])
        lowest = min(min(model["bases"][name]["cosine"]) for name in LINES)
        title = f"{role} (thin lines: a random state)"
        axes.set(title=title, xlabel="layer", ylabel="cosine", ylim=(min(0.0, lowest) - 0.03, 1.05))
        axes.set_xticks(ticks(model["depth"]))
        plain_axes(axes)
    panels[0].legend(fontsize=8, frameon=False, labelcolor=INK, loc="best")
    spans = [f"{role}: {', '.join(_spans(model['bases']))}" for role, model in models.items()]
    drawing = Drawing(
        name="resolution",
        title=f"Resolution of semantics ({data['interface']} interface, {rows_of(data)})",
        alt=f"Cosine between a layer's output and the sum of its projections, per layer. {'; '.join(spans)}.",
        figure=figure,
    )
    return [drawing]


def _spans(bases: Mapping[str, Any]) -> Iterator[str]:
    for name in LINES:
        low, high, typical = min(bases[name]["cosine"]), max(bases[name]["cosine"]), bases[name]["typical"]
        yield f"{BASES[name]} {low:.2f} to {high:.2f} (a random state {typical:.2f})"


def cka_figures(data: Mapping[str, Any]) -> list[Drawing]:
    """Draw every matrix as a heat map; colours span 0 to 1, and -x to x for a change."""
    return [_heat_map(matrix) for matrix in matrices(data)]


def _heat_map(matrix: Mapping[str, Any]) -> Drawing:
    values, change = matrix["values"], matrix["change"]
    high, wide = len(values), len(values[0])
    figure = blank(_size(wide) + 1.2, _size(high) + 0.9)
    axes = figure.subplots()
    bound = max(1e-3, max(abs(number) for row in values for number in row)) if change else 1.0
    limits = {"vmin": -bound, "vmax": bound, "cmap": "RdBu"} if change else {"vmin": 0, "vmax": 1}
    image = axes.imshow(values, aspect="auto", **({"cmap": "viridis"} | limits))
    bar = figure.colorbar(image, ax=axes, fraction=0.06, pad=0.03)
    bar.set_label("change of CKA" if change else "linear CKA", color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    axes.set(xlabel=f"{matrix['columns']} layer", ylabel=f"{matrix['rows']} layer")
    for set_ticks, count in ((axes.set_xticks, wide), (axes.set_yticks, high)):
        set_ticks([tick - 1 for tick in ticks(count)], [str(tick) for tick in ticks(count)])
    plain_axes(axes)
    axes.tick_params(length=0)
    if max(high, wide) <= NUMBERS:
        _numbers(axes, values, change=change, bound=bound)
    name = "change" if change else f"{matrix['rows']}_{matrix['columns']}"
    title = matrix_title(matrix)
    title = title[0].upper() + title[1:]
    return Drawing(name=f"cka_{name}", title=title, alt=_in_words(matrix), figure=figure)


def _numbers(axes: Any, values: Sequence[Sequence[float]], *, change: bool, bound: float) -> None:
    for row, numbers in enumerate(values):
        for column, number in enumerate(numbers):
            dark = abs(number) > 0.6 * bound if change else number < 0.6
            shown = f"{number:+.2f}" if change else f"{number:.2f}"
            colour = ON_DARK if dark else ON_LIGHT
            axes.text(column, row, shown, ha="center", va="center", fontsize=8, color=colour)


def _in_words(matrix: Mapping[str, Any]) -> str:
    values = matrix["values"]
    cells = [(number, r + 1, k + 1) for r, row in enumerate(values) for k, number in enumerate(row)]
    (low, low_row, low_column), (high, high_row, high_column) = min(cells), max(cells)
    return (
        f"Heat map of {len(values)} {matrix['rows']} layers by {len(values[0])} {matrix['columns']} layers; "
        f"lowest {low:.2f} at {matrix['rows']} {low_row}, {matrix['columns']} {low_column}; "
        f"highest {high:.2f} at {matrix['rows']} {high_row}, {matrix['columns']} {high_column}."
    )


def attribution_figures(data: Mapping[str, Any]) -> list[Drawing]:
    """Draw a model's scores (reduce=example) per layer, one panel per interface, with one standard error."""
    drawings = []
    for role, model in data["models"].items():
        figure = blank(5.2, 4.6)
        best = []
        for axes, (interface, by_reduce) in zip(figure.subplots(2, 2).flat, model.items(), strict=True):
            score = by_reduce["example"]
            layers = range(1, len(score["value"]) + 1)
            axes.bar(
                layers,
                score["value"],
                yerr=score["stderr"],
                color=ROLES[role],
                error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
            )
            axes.set_title(interface, fontsize=9)
            axes.set_xticks(ticks(len(layers), most=8))
            axes.tick_params(labelsize=8)
            plain_axes(axes)
            best.append(f"{interface} {1 + score['value'].index(max(score['value']))}")
        figure.supxlabel("layer", color=INK, fontsize=9)
        drawings.append(
            Drawing(
                name=f"attribution_{role}",
                title=f"Gradient × activation of the {role}'s layers, by interface ({rows_of(data)})",
                alt=f"Bars per layer in four panels. Highest layer per interface: {', '.join(best)}.",
                figure=figure,
            )
        )
    return drawings


def map_figures(data: Mapping[str, Any]) -> list[Drawing]:
    """Draw each map's quality, mean over pairs of layers: on the rows that it fits (hollow) and on others (filled)."""
    measures = [name for name in ("cosine", "explained_variance", "readout_kl") if measured(data, name)]
    maps = list(data["maps"])
    labels = [as_text(wrapped(name, 26)) for name in reversed(maps)]
    height = (0.24 + 0.11 * max(label.count("\n") for label in labels)) * len(maps) + 0.8
    figure = blank(5.2, height * len(measures) + 0.5)
    panels = figure.subplots(len(measures), 1, squeeze=False)[:, 0]
    for axes, measure in zip(panels, measures, strict=True):
        for place, name in enumerate(reversed(maps)):
            _map_row(axes, place, data["maps"][name], measure)
        axes.set_yticks(range(len(maps)), labels, fontsize=8)
        axes.set_ylim(-0.6, len(maps) - 0.4)
        if measure == "readout_kl":
            sides = (side for cards in data["maps"].values() for card in cards for side in card.values())
            if all(side[measure] > 0 for side in sides):
                axes.set_xscale("log")
                plain_logarithm(axes.xaxis)
        better = " (nats, lower is better)" if measure == "readout_kl" else ""
        axes.set_xlabel(MAP_MEASURES[measure] + better, fontsize=9)
        axes.grid(axis="x", color=QUIET, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(axis="x", labelsize=8)
        plain_axes(axes)
    panels[0].legend(
        fontsize=8, frameon=False, labelcolor=INK, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3
    )
    cosines = [f"{name} {value(mean_over_pairs(data['maps'][name], 'held_out', 'cosine'))}" for name in maps]
    drawing = Drawing(
        name="maps",
        title=f"Quality of the alignment maps ({data['interface']} interface, {pairs_of(data)})",
        alt=f"Per map, cosine to the student's own state on held-out rows: {', '.join(cosines)}.",
        figure=figure,
    )
    return [drawing]


def _map_row(axes: Any, place: int, cards: Sequence[Mapping[str, Any]], measure: str) -> None:
    label = (lambda text: text) if place == 0 else (lambda _text: "_")
    single = [card["held_out"][measure] for card in cards]
    axes.plot(single, [place] * len(single), "|", color=INK, markersize=7, label=label("a pair, held out"))
    for side, filled, text in (("fitted", "none", "mean, fitted"), ("held_out", TEACHER, "mean, held out")):
        mean = mean_over_pairs(cards, side, measure)
        axes.plot(
            [mean], [place], "o", color=TEACHER, markerfacecolor=filled, markersize=7, label=label(text)
        )


def _size(layers: int) -> float:
    return min(6.5, max(2.2, 0.46 * layers)) if layers <= NUMBERS else min(6.5, 0.16 * layers + 1.5)


FIGURES: dict[str, Callable[[Mapping[str, Any]], list[Drawing]]] = {
    "resolution": resolution_figures,
    "cka": cka_figures,
    "attribution": attribution_figures,
    "maps": map_figures,
}
