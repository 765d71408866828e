"""The part `maps` of `pkt analyze`: every alignment map on the method's pairs of layers, also on rows it never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pkt.data.batching import position_counts
from pkt.data.encoding import Encoded
from pkt.late import Tensor
from pkt.mapping import Depth, LayerPair
from pkt.methods.layer_results import LayerExtraction
from pkt.methods.readings import read_by
from pkt.models.taps import Interface
from pkt.objectives import OutputHead
from pkt.semantics import AlignmentMap, HeadView, Semantics, States, quality_card
from pkt.settings import deciding, target_of
from pkt.stages.analyze_subject import UNTOUCHED, Subject, heading
from pkt.training.capture import capture
from pkt.training.passes import Read

STATES = 4 << 30  # bytes of paired states in memory: as many pairs of layers as fit are read in one pass


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
    shared, two = bench.pair_report, not bench.one_vocabulary
    views = {
        "teacher": HeadView.of(subject.arch("teacher"), shared.teacher_ids, two_vocabularies=two),
        "student": HeadView.of(
            subject.arch("student"), shared.student_ids, bench.channels, two_vocabularies=two
        ),
    }
    lens = OutputHead(arch=subject.arch("student")).lens if subject.config.interface == "block" else None
    constant: dict[str, AlignmentMap] = {}
    cards: dict[str, list[dict[str, Any]]] = {name: [] for name in subject.maps}
    for group in _groups(subject, pairs):
        fitting, held_out = (
            _paired(subject, group, rows)
            for rows in (lambda role: read_by(bench, role, "align"), subject.encoded)
        )
        for k in (pair.student for pair in group):
            states = {"fitted": fitting[k], "held_out": held_out[k]}
            for name, own in map_cards(subject.maps, constant, **views, states=states, read_out=lens).items():
                cards[name].append(own)
    fitted = {"fitted_rows": len(bench.encoded("align").lengths)}
    listed = [{"student": p.student, "teacher": list(p.teacher), "weights": list(p.weights)} for p in pairs]
    return {**heading(subject), **fitted, "pairs": listed, "maps": cards}


def map_cards(
    strategies: Mapping[str, Semantics],
    constant: dict[str, AlignmentMap],
    *,
    teacher: HeadView,
    student: HeadView,
    states: Mapping[str, States],
    read_out: Callable[[Tensor], Tensor] | None,
) -> dict[str, dict[str, Any]]:
    """Fit every map on one pair of layers, and measure it on the rows it was fitted on and on others.

    Args:
        strategies: ways to make a map, by name.
        constant: maps that read no states, which are the same for every pair; missing ones are added.
        teacher: what maps see of the teacher.
        student: what they see of the student.
        states: paired states: ``fitted`` are those that maps are fitted on, ``held_out`` those of other rows.
        read_out: block states of the student to logits; None: no read-out KL.

    Returns:
        name -> quality cards under the names of `states`, as plain data.

    Raises:
        PktError: states that are not finite, or a head that is zero or not finite.
    """
    cards = {}
    for name, strategy in strategies.items():
        own = constant.get(name) or strategy.fit(teacher=teacher, student=student, states=states["fitted"])
        if not strategy.needs_states:
            constant[name] = own
        cards[name] = {
            side: asdict(quality_card(own, *both, read_out=read_out)) for side, both in states.items()
        }
    return cards


def _groups(subject: Subject, pairs: tuple[LayerPair, ...]) -> list[tuple[LayerPair, ...]]:
    """Cut the pairs into groups whose states fit into memory together."""
    rows = (read_by(subject.bench, "student", "align"), subject.encoded("student"))
    count = sum(sum(position_counts(encoded, subject.config.positions)) for encoded in rows)
    width = sum(subject.arch(role).width for role in UNTOUCHED)
    size = max(1, STATES // max(1, 4 * count * width))
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def _paired(
    subject: Subject, pairs: tuple[LayerPair, ...], read: Callable[[str], Encoded]
) -> dict[int, States]:
    """Return student layer -> the states of the paired layers of both models, where they have read the same text.

    Args:
        subject: has both models.
        pairs: the layers.
        read: a model's role to the rows as it reads them.
    """
    sides = []
    for role in UNTOUCHED:
        arch, encoded = subject.arch(role), read(role)
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
    return {k: (teacher[k].flat(), student[k].flat()) for k in teacher}
