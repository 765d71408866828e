"""The tables of `pkt analyze`: a part's plain data in, rows of text out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from pkt.table import Table

BASES = {"output": "output side", "input": "input side", "random": "random directions"}
MAP_MEASURES = {
    "cosine": "cosine",
    "cosine_centred": "centred cosine",
    "explained_variance": "explained variance",
    "readout_kl": "read-out KL",
}


def value(number: float | None, error: float | None = None) -> str:
    """Return ``0.912 ± 0.003`` with three digits after the point; a dash for what is not defined."""
    if number is None:
        return "–"
    shown = f"{number:.3f}" if 1e-3 <= abs(number) < 1e4 or number == 0 else f"{number:.3g}"
    return shown if error is None else f"{shown} ± {error:.2g}"


def rows_of(data: Mapping[str, Any]) -> str:
    """Return ``256 validation rows``."""
    return f"{data['rows']} {data['split']} row{'' if data['rows'] == 1 else 's'}"


# how a basis is described: column -> text of its data
_BASIS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "vectors": lambda basis: f"{basis['size']:,}",
    "rank": lambda basis: f"{basis['rank']} of {basis['width']}",
    "condition of S Sᵀ": lambda basis: value(basis["condition"]),
    "lowest cosine possible": lambda basis: value(basis["lowest"]),
    "cosine of a random state": lambda basis: value(basis["typical"]),
    "|S Sᵀ r| / |r|": lambda basis: f"{min(basis['stretch']):.3g} to {max(basis['stretch']):.3g}",
    "cosine(S S⁺ r, r)": lambda basis: value(min(basis["exact"])),
}


def resolution_tables(data: Mapping[str, Any]) -> list[Table]:
    """Return the cosine per layer and basis, and what each basis is like."""
    layers, bases = [], []
    for role, model in data["models"].items():
        for layer in range(model["depth"]):
            layers.append((role, str(layer + 1), *(_cosine(model["bases"][name], layer) for name in BASES)))
        for name, basis in model["bases"].items():
            tied = " (tied)" if model["tied"] and name != "random" else ""
            shown = (show({**basis, "width": model["width"]}) for show in _BASIS.values())
            bases.append((role, BASES[name] + tied, *shown))
    where = f"r at the {data['interface']} interface, {rows_of(data)}"
    return [
        Table(
            title=f"resolution of semantics: cosine(S Sᵀ r, r), {where}",
            columns=("model", "layer", *BASES.values()),
            rows=tuple(layers),
        ),
        Table(title="the bases of the resolution", columns=("model", "basis", *_BASIS), rows=tuple(bases)),
    ]


def _cosine(basis: Mapping[str, Any], layer: int) -> str:
    error = basis["cosine_stderr"]
    return value(basis["cosine"][layer], error[layer] if error else None)


def cka_tables(data: Mapping[str, Any]) -> list[Table]:
    """Return a summary of every matrix, and the matrices."""
    summary = []
    for matrix in data["matrices"]:
        numbers = [number for row in matrix["values"] for number in row]
        chance = max(number for row in matrix["chance"] for number in row)
        summary.append(
            (
                f"{matrix['rows']} × {matrix['columns']}",
                f"{matrix['tokens']:,}" + (f" ({left} left out)" if (left := matrix.get("left_out")) else ""),
                value(sum(numbers) / len(numbers)),
                value(matrix["same_depth"]),
                f"{min(numbers):.3f} to {max(numbers):.3f}",
                f"up to {value(chance)}",
            )
        )
    title = f"linear CKA of layers at the {data['interface']} interface, {rows_of(data)}"
    columns = ("models", "tokens", "mean", "at the same relative depth", "range", "by chance")
    return [Table(title=title, columns=columns, rows=tuple(summary)), *map(_matrix, matrices(data))]


def matrices(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the matrices, with the change that the transfer made to teacher × student where both are there."""
    measured = [dict(matrix, change=False) for matrix in data["matrices"]]
    named = {(matrix["rows"], matrix["columns"]): matrix["values"] for matrix in measured}
    before, after = named.get(("teacher", "student")), named.get(("teacher", "transferred"))
    if before is None or after is None or [len(r) for r in before] != [len(r) for r in after]:
        return measured
    change = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(after, before, strict=True)]
    return [*measured, {"rows": "teacher", "columns": "transferred", "values": change, "change": True}]


def _matrix(matrix: Mapping[str, Any]) -> Table:
    sign = "+" if matrix["change"] else ""
    rows = tuple(
        (str(layer), *(f"{number:{sign}.3f}" for number in row))
        for layer, row in enumerate(matrix["values"], start=1)
    )
    columns = (f"{matrix['rows']} layer", *(str(k) for k in range(1, len(matrix["values"][0]) + 1)))
    return Table(title=matrix_title(matrix), columns=columns, rows=rows)


def matrix_title(matrix: Mapping[str, Any]) -> str:
    """Say what a matrix compares."""
    if matrix["change"]:
        return "change of CKA by the transfer: teacher × transferred minus teacher × student"
    return f"CKA: {matrix['rows']} layers (rows) × {matrix['columns']} layers (columns)"


def attribution_tables(data: Mapping[str, Any]) -> list[Table]:
    """Return a table of scores per reduction, and how far the interfaces agree on an order of the layers."""
    first = next(iter(data["models"].values()))
    interfaces, reductions = list(first), list(next(iter(first.values())))
    scores = [
        Table(
            title=f"gradient × activation per layer and interface (reduce={reduce}), {rows_of(data)}",
            columns=("model", "layer", *interfaces),
            rows=tuple(_scores(data["models"], reduce)),
        )
        for reduce in reductions
    ]
    pairs = list(combinations(range(len(interfaces)), 2))
    agreement = Table(
        title="rank correlation of the layers' attribution between interfaces",
        columns=("model", "reduce", *(f"{interfaces[a]}, {interfaces[b]}" for a, b in pairs)),
        rows=tuple(
            (role, reduce, *(value(data["agreement"][role][reduce][a][b]) for a, b in pairs))
            for role in data["models"]
            for reduce in reductions
        ),
    )
    kept = Table(
        title="rank correlation of the layers' attribution between student and transferred student",
        columns=("interface", *reductions),
        rows=tuple(
            (interface, *(value(own[reduce]) for reduce in reductions))
            for interface, own in (data["kept"] or {}).items()
        ),
    )
    return [scores[0], agreement, *([kept] if kept.rows else []), *scores[1:]]


def _scores(models: Mapping[str, Any], reduce: str) -> Iterator[tuple[str, ...]]:
    for role, model in models.items():
        scores = [by_reduce[reduce] for by_reduce in model.values()]
        for layer in range(len(scores[0]["value"])):
            errors = [f" ± {own['stderr'][layer]:.1g}" if own["stderr"] else "" for own in scores]
            cells = (f"{own['value'][layer]:.3g}{error}" for own, error in zip(scores, errors, strict=True))
            yield role, str(layer + 1), *cells


def map_tables(data: Mapping[str, Any]) -> list[Table]:
    """Return the quality of every map, mean over the pairs of layers, and pair by pair."""
    measures = [name for name in MAP_MEASURES if measured(data, name)]
    columns = [f"{MAP_MEASURES[name]}, {side}" for name in measures for side in ("fitted", "held out")]
    shown = [(side, measure) for measure in measures for side in ("fitted", "held_out")]
    means, pairs = [], []
    for name, cards in data["maps"].items():
        means.append((name, *(value(mean_over_pairs(cards, *one)) for one in shown)))
        for pair, card in zip(data["pairs"], cards, strict=True):
            layers = (str(pair["student"]), " ".join(map(str, pair["teacher"])))
            held = card["held_out"]
            about = (str(held["rank"]), value(held["condition"]), str(held.get("left_out", 0)))
            pairs.append((name, *layers, *(value(card[side][measure]) for side, measure in shown), *about))
    fitted = f"fitted on {data['fitted_rows']} align rows"
    where = f"at the {data['interface']} interface: {fitted}, held out: {rows_of(data)}"
    title = f"maps, mean over {pairs_of(data)} {where}"
    per_pair = ("map", "student layer", "teacher layer", *columns, "rank", "condition", "left out")
    return [
        Table(title=title, columns=("map", *columns), rows=tuple(means)),
        Table(title=f"maps per pair of layers {where}", columns=per_pair, rows=tuple(pairs)),
    ]


def pairs_of(data: Mapping[str, Any]) -> str:
    """Return ``3 pairs of layers``."""
    count = len(data["pairs"])
    return f"{count} pair{'' if count == 1 else 's'} of layers"


def mean_over_pairs(cards: Sequence[Mapping[str, Any]], side: str, measure: str) -> float | None:
    """Return a measure's mean over the pairs; None where a pair has none."""
    numbers = [card[side][measure] for card in cards]
    return None if None in numbers else sum(numbers) / len(numbers)


def measured(data: Mapping[str, Any], measure: str) -> bool:
    """Whether every map has a measure on every pair."""
    return all(card["held_out"][measure] is not None for cards in data["maps"].values() for card in cards)


# how many of a part's first tables a console has room for; None: all
SHOWN: dict[str, int | None] = {"resolution": None, "cka": None, "attribution": 2, "maps": 1}

TABLES: dict[str, Callable[[Mapping[str, Any]], list[Table]]] = {
    "resolution": resolution_tables,
    "cka": cka_tables,
    "attribution": attribution_tables,
    "maps": map_tables,
}
