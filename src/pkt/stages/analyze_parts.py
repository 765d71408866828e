"""The parts of `pkt analyze`: what each reads, what its key is made of, and its numbers as plain data.

Subject (models by role, rows) -> analysis (tensors) -> {"interface": ..., "models": {...}, ...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pkt.analysis import (
    Recomposition,
    cka_matrices,
    cka_pairs,
    interface_scores,
    over_rows,
    random_recomposition,
    rank_correlation,
    recomposition,
    resolution,
)
from pkt.attribution import REDUCTIONS
from pkt.mapping import depth_layer
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.stages import analyze_maps as maps
from pkt.stages.analyze_subject import ALL, UNTOUCHED, Part, Subject, heading, require

INTERFACES = tuple(interface.value for interface in Interface)


def _resolution(subject: Subject) -> dict[str, Any]:
    roles = subject.roles(UNTOUCHED)
    with subject.bench.track("resolution", len(roles) * len(subject.chosen)) as advance:
        models = {role: _resolution_of(subject, subject.arch(role), advance) for role in roles}
    return {**heading(subject), "models": models}


def _resolution_of(subject: Subject, arch: Architecture, advance: Callable[[int], None]) -> dict[str, Any]:
    head, embedding = arch.head_weight(), arch.embedding_weight()
    bases = {
        "output": recomposition(head, "output"),
        "input": recomposition(embedding, "input"),
        "random": random_recomposition(*head.shape, device=head.device),
    }
    interface = subject.config.interface
    found = resolution(arch, subject.encoded, bases, interface=interface, **subject.passes(), listen=advance)
    listed = {}
    for name, basis in bases.items():
        cosine, error = over_rows(found[name].cosine_RL)
        listed[name] = {
            **_described(basis),
            "cosine": cosine,
            "cosine_stderr": error,
            "stretch": over_rows(found[name].stretch_RL)[0],
            "exact": over_rows(found[name].exact_RL)[0],
        }
    return {"depth": arch.depth, "width": arch.width, "tied": arch.tied, "bases": listed}


def _described(basis: Recomposition) -> dict[str, Any]:
    return {
        "size": basis.size,
        "rank": basis.rank,
        "condition": basis.condition,
        "lowest": basis.lowest,
        "typical": basis.typical,
    }


def _check_cka(subject: Subject) -> None:
    require(subject, "cka", ("student", "transferred"), every=False)


def _cka(subject: Subject) -> dict[str, Any]:
    models = {role: subject.arch(role) for role in subject.roles(ALL)}
    pairs, total = cka_pairs(models), len(subject.chosen)
    with subject.bench.track("cka", len(pairs) * total) as advance:
        found = cka_matrices(
            models, subject.encoded, interface=subject.config.interface, **subject.passes(), listen=advance
        )
    matrices = [
        {
            "rows": first,
            "columns": second,
            "values": compared.cka_LL.tolist(),
            "chance": compared.chance_LL.tolist(),
            "tokens": compared.positions,
            "same_depth": _same_depth(compared.cka_LL),
        }
        for (first, second), compared in found.items()
    ]
    return {**heading(subject), "matrices": matrices}


def _same_depth(values_LL: Tensor) -> float:
    """Return the mean over the second model's layers of the CKA with the first's at the same relative depth."""
    first, second = values_LL.shape
    layers = range(1, second + 1)
    return sum(float(values_LL[depth_layer(k, first, second) - 1, k - 1]) for k in layers) / second


def _attribution(subject: Subject) -> dict[str, Any]:
    models: dict[str, Any] = {}
    roles = subject.roles(ALL)
    total = len(roles) * len(INTERFACES) * len(subject.chosen)
    with subject.bench.track("attribution", total) as advance:
        for role in roles:
            batch_size = subject.bench.config.optim.batch_size
            scores = interface_scores(
                subject.arch(role), subject.encoded, batch_size=batch_size, listen=advance
            )
            models[role] = {
                interface: {reduce: _score(over_rows(values_RL)) for reduce, values_RL in by_reduce.items()}
                for interface, by_reduce in scores.items()
            }
    about = {name: value for name, value in heading(subject).items() if name in ("split", "rows")}
    agreement = {role: _agreement(scores) for role, scores in models.items()}
    return {**about, "models": models, "agreement": agreement, "kept": _kept(models)}


def _score(found: tuple[list[float], list[float] | None]) -> dict[str, Any]:
    return {"value": found[0], "stderr": found[1]}


def _agreement(scores: Mapping[str, Any]) -> dict[str, list[list[float | None]]]:
    """Return reduction -> rank correlation over the layers, interface by interface."""
    return {
        reduce: [
            [
                rank_correlation(scores[first][reduce]["value"], scores[second][reduce]["value"])
                for second in INTERFACES
            ]
            for first in INTERFACES
        ]
        for reduce in REDUCTIONS
    }


def _kept(models: Mapping[str, Any]) -> dict[str, dict[str, float | None]] | None:
    """Return interface -> reduction -> rank correlation of the student's layers before and after transfer."""
    if not {"student", "transferred"} <= set(models):
        return None
    return {
        interface: {
            reduce: rank_correlation(
                *(models[role][interface][reduce]["value"] for role in ("student", "transferred"))
            )
            for reduce in REDUCTIONS
        }
        for interface in INTERFACES
    }


PARTS: dict[str, Part] = {
    "resolution": Part(
        check=lambda subject: require(subject, "resolution", UNTOUCHED, every=False),
        compute=_resolution,
        roles=UNTOUCHED,
    ),
    "cka": Part(check=_check_cka, compute=_cka, roles=ALL),
    "attribution": Part(
        check=lambda subject: require(subject, "attribution", ALL, every=False),
        compute=_attribution,
        roles=ALL,
        settings=(),  # it reads every interface, and answers only
    ),
    "maps": Part(check=maps.check, compute=maps.compute, roles=UNTOUCHED, splits=("align",), pairs=True),
}
