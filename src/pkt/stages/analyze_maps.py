"""The part `maps` of `pkt analyze`: every alignment map on the method's pairs of layers, also on rows it never saw."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pkt.analysis import MapCards, map_cards, training_free
from pkt.data.encoding import Encoded
from pkt.errors import RequestError
from pkt.mapping import Depth, LayerPair
from pkt.methods.layer_results import LayerExtraction
from pkt.methods.layerwise import head_view
from pkt.models.taps import Interface
from pkt.objectives import OutputHead
from pkt.semantics import States
from pkt.settings import deciding, target_of
from pkt.stages.analyze_subject import UNTOUCHED, Subject, heading, require
from pkt.training.capture import Read, capture, position_counts

STATES = 4 << 30  # bytes of paired states in memory: as many pairs of layers as fit are read in one pass


def check(subject: Subject) -> None:
    """Refuse a request without both models, or without held-out rows.

    Raises:
        RequestError: it is one.
    """
    require(subject, "maps", UNTOUCHED, every=True)
    if subject.config.split == "align":
        raise RequestError(
            "analyze.split=align: the part maps fits on the align rows and measures on others, so that no map "
            "flatters itself; choose analyze.split=validation, or leave maps out: `pkt analyze <other parts>`."
        )


def layer_pairs(subject: Subject) -> tuple[LayerPair, ...]:
    """Return the method's pairs of layers; those of relative depth where the method pairs none."""
    if "extract" in subject.results:
        return LayerExtraction.load(subject.results["extract"].path).pairs
    teacher, student = subject.bench.teacher_config, subject.bench.student_config
    return Depth().pairs(int(teacher.num_hidden_layers), int(student.num_hidden_layers))


def measured(subject: Subject) -> dict[str, Any]:
    """Return each map with its settings."""
    return {
        name: {"_target_": target_of(type(map_))} | deciding(map_, "align", None, path="", first="align")
        for name, map_ in subject.maps.items()
    }


def compute(subject: Subject) -> dict[str, Any]:
    """Return every map's cards, in the order of the pairs."""
    bench, pairs = subject.bench, layer_pairs(subject)
    shared = bench.pair_report.shared_ids
    views = {role: head_view(subject.arch(role), shared) for role in UNTOUCHED}
    constant = training_free(subject.maps, **views)
    lens = OutputHead(arch=subject.arch("student")).lens if subject.config.interface == "block" else None
    cards: dict[str, list[dict[str, Any]]] = {name: [] for name in subject.maps}
    for group in _groups(subject, pairs):
        fitting, held_out = (
            _paired(subject, group, rows) for rows in (bench.encoded("align"), subject.encoded)
        )
        for pair in group:
            k = pair.student
            found = map_cards(
                subject.maps, constant, **views, fitting=fitting[k], held_out=held_out[k], read_out=lens
            )
            for name, both in found.items():
                cards[name].append(_plain(both))
    fitted = {"fitted_rows": len(bench.encoded("align").lengths)}
    listed = [{"student": p.student, "teacher": list(p.teacher), "weights": list(p.weights)} for p in pairs]
    return {**heading(subject), **fitted, "pairs": listed, "maps": cards}


def _plain(both: MapCards) -> dict[str, Any]:
    return {"fitted": asdict(both.fitted), "held_out": asdict(both.held_out)}


def _groups(subject: Subject, pairs: tuple[LayerPair, ...]) -> list[tuple[LayerPair, ...]]:
    """Cut the pairs into groups whose states fit into memory together."""
    rows = (subject.bench.encoded("align"), subject.encoded)
    count = sum(sum(position_counts(encoded, subject.config.positions)) for encoded in rows)
    width = sum(subject.arch(role).width for role in UNTOUCHED)
    size = max(1, STATES // max(1, 4 * count * width))
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def _paired(subject: Subject, pairs: tuple[LayerPair, ...], encoded: Encoded) -> dict[int, States]:
    """Return student layer -> the states of the paired layers of both models at the same positions."""
    sides = []
    for role in UNTOUCHED:
        arch = subject.arch(role)
        own = {
            pair.student: Read(layers=pair.teacher, weights=pair.weights, width=arch.width)
            if role == "teacher"
            else Read(layers=(pair.student,), width=arch.width)
            for pair in pairs
        }
        with subject.bench.track(f"{role} states", len(encoded.lengths)) as advance:
            interface = Interface(subject.config.interface)
            sides.append(capture(arch, encoded, own, interface=interface, **subject.passes(), listen=advance))
    teacher, student = sides
    return {k: (teacher[k].flat_ND, student[k].flat_ND) for k in teacher}
