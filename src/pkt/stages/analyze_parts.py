"""The parts of `pkt analyze`: what each reads, what its key is made of, and its numbers as plain data.

Subject (models by role, rows) -> analysis (tensors) -> {"interface": ..., "models": {...}, ...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pkt.analysis.attribution import interface_scores, rank_correlation
from pkt.analysis.resolution import random_recomposition, recomposition, resolution
from pkt.analysis.rows import over_rows
from pkt.attribution import REDUCTIONS
from pkt.attribution.similarity import compare_layers
from pkt.config import MODELS
from pkt.late import Tensor
from pkt.mapping import depth_layer
from pkt.models.taps import Interface
from pkt.stages import analyze_maps as maps
from pkt.stages.analyze_subject import UNTOUCHED, Part, Subject, heading

INTERFACES = tuple(interface.value for interface in Interface)
# models whose layers are compared, of those that are there
CKA_PAIRS = (
    ("student", "transferred"),
    ("student", "student"),
    ("transferred", "transferred"),
    ("teacher", "student"),
    ("teacher", "transferred"),
)


def _resolution(subject: Subject) -> dict[str, Any]:
    roles = subject.roles(UNTOUCHED)
    with subject.bench.track("resolution", len(roles) * len(subject.chosen)) as advance:
        models = {role: _resolution_of(subject, role, advance) for role in roles}
    return {**heading(subject), "models": models}


def _resolution_of(subject: Subject, role: str, advance: Callable[[int], None]) -> dict[str, Any]:
    arch = subject.arch(role)
    head, embedding = arch.head_weight(), arch.embedding_weight()
    bases = {
        "output": recomposition(head, "output"),
        "input": recomposition(embedding, "input"),
        "random": random_recomposition(*head.shape, seed=subject.bench.config.seed, device=head.device),
    }
    interface = subject.config.interface
    measured = resolution(
        arch, subject.encoded(role), bases, interface=interface, **subject.passes(), listen=advance
    )
    listed = {}
    for name, basis in bases.items():
        cosine, error = over_rows(measured[name].cosine_RL)
        listed[name] = {
            **{key: getattr(basis, key) for key in ("size", "rank", "condition", "lowest", "typical")},
            "cosine": cosine,
            "cosine_stderr": error,
            "stretch": over_rows(measured[name].stretch_RL)[0],
            "exact": over_rows(measured[name].exact_RL)[0],
        }
    return {"depth": arch.depth, "width": arch.width, "tied": arch.tied, "bases": listed}


def _cka(subject: Subject) -> dict[str, Any]:
    roles = subject.roles(MODELS)
    pairs = [pair for pair in CKA_PAIRS if set(pair) <= set(roles)]
    matrices = []
    with subject.bench.track("cka", len(pairs) * len(subject.chosen)) as advance:
        for first, second in pairs:
            compared = compare_layers(
                subject.arch(first),
                subject.arch(second),
                subject.encoded(second),
                interface=subject.config.interface,
                read_by_teacher=subject.encoded(first),
                **subject.passes(),
                listen=lambda rows, _tokens: advance(rows),
            )
            matrices.append(
                {
                    "rows": first,
                    "columns": second,
                    "values": compared.cka_LL.tolist(),
                    "chance": compared.chance_LL.tolist(),
                    "tokens": compared.positions,
                    "left_out": compared.left_out,
                    "same_depth": _same_depth(compared.cka_LL),
                }
            )
    return {**heading(subject), "matrices": matrices}


def _same_depth(values_LL: Tensor) -> float:
    """Return the mean over the second model's layers of the CKA with the first's at the same relative depth."""
    first, second = values_LL.shape
    layers = range(1, second + 1)
    return sum(float(values_LL[depth_layer(k, first, second) - 1, k - 1]) for k in layers) / second


def _attribution(subject: Subject) -> dict[str, Any]:
    models: dict[str, Any] = {}
    roles, batch_size = subject.roles(MODELS), subject.bench.config.optim.batch_size
    total = len(roles) * len(INTERFACES) * len(subject.chosen)
    with subject.bench.track("attribution", total) as advance:
        for role in roles:
            scores = interface_scores(
                subject.arch(role), subject.encoded(role), batch_size=batch_size, listen=advance
            )
            models[role] = {
                interface: {
                    reduce: dict(zip(("value", "stderr"), over_rows(values_RL), strict=True))
                    for reduce, values_RL in by_reduce.items()
                }
                for interface, by_reduce in scores.items()
            }
    about = {name: value for name, value in heading(subject).items() if name in ("split", "rows")}
    return {**about, "models": models, "agreement": _agreement(models), "kept": _kept(models)}


def _agreement(models: Mapping[str, Any]) -> dict[str, dict[str, list[list[float | None]]]]:
    """Return role -> reduction -> rank correlation over the layers, interface by interface."""
    agreement: dict[str, dict[str, list[list[float | None]]]] = {}
    for role, scores in models.items():
        agreement[role] = {}
        for reduce in REDUCTIONS:
            values = [scores[interface][reduce]["value"] for interface in INTERFACES]
            agreement[role][reduce] = [[rank_correlation(one, other) for other in values] for one in values]
    return agreement


def _kept(models: Mapping[str, Any]) -> dict[str, dict[str, float | None]] | None:
    """Return interface -> reduction -> rank correlation of the student's layers before and after transfer."""
    if not {"student", "transferred"} <= set(models):
        return None
    before, after = models["student"], models["transferred"]
    return {
        interface: {
            reduce: rank_correlation(before[interface][reduce]["value"], after[interface][reduce]["value"])
            for reduce in REDUCTIONS
        }
        for interface in INTERFACES
    }


PARTS: dict[str, Part] = {
    "resolution": Part(compute=_resolution, roles=UNTOUCHED, drawn=True),
    "cka": Part(compute=_cka, roles=MODELS, needs=("student", "transferred")),
    # it reads every interface, and answers only
    "attribution": Part(compute=_attribution, roles=MODELS, settings=()),
    "maps": Part(compute=maps.compute, roles=UNTOUCHED, maps=True),
}
