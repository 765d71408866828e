"""Terms on plain tensors: a view with what a test gives, and objectives by short names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pkt.objectives import (
    Attended,
    Chunk,
    Cosine,
    CrossEntropy,
    Divergence,
    Fisher,
    Geometry,
    Head,
    Labels,
    MeanSquare,
    Objective,
    OutputCosine,
    Outputs,
    Pair,
    RowIds,
    Sequences,
    States,
    Term,
    Uld,
    View,
)

NEEDS = {"head": Head, "labels": Labels, "teacher": Outputs, "rows": RowIds, "sequence": Sequences}
KINDS: dict[str, type[Any]] = {
    "cosine": Cosine,
    "mean_square": MeanSquare,
    "fisher": Fisher,
    "geometry": Geometry,
    "output": OutputCosine,
    "ce": CrossEntropy,
    "kl": Divergence,
    "uld": Uld,
    "chunk": Chunk,
    "attended": Attended,
}


def view_of(states: Tensor, *targets: Tensor, own: nn.Module | None = None, **given: Any) -> View:
    """A view of some positions: of a layer term where there are targets, else of an output term."""
    needs = {NEEDS[name]: value for name, value in given.items()}
    pairs = [Pair(layer=k, states_ND=states, targets_ND=target) for k, target in enumerate(targets, start=1)]
    return View(count=len(states), given={**needs, States: pairs}, final=None if targets else states, own=own)


def mean_of(term: Term, states: Tensor, *targets: Tensor, **given: Any) -> Tensor:
    """A term's mean over a batch."""
    sums = term(view_of(states, *targets, **given))
    return (sums.total / sums.count).mean()


def objective(balance: str = "none", **terms: Any) -> Objective:
    """``objective(cosine={"weight": 2}, ce={})``: terms that are called by their kind, layer terms ``layer``."""
    layer = ("cosine", "mean_square", "fisher", "geometry")
    named = {"layer" if kind in layer else kind: KINDS[kind](**settings) for kind, settings in terms.items()}
    return Objective(terms=named, balance=balance)
