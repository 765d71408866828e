"""LaTen's first stage: locate layers and neurons in both models, and take the teacher's weights of its neurons.

checks without weights -> insides of both models over the extract rows -> layer scores (teacher)
    -> L_S teacher layers per kind -> neuron scores of the paired layers, both models -> the teacher's weights
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pkt.attribution.locate import Kind, Observed, layer_scores, neuron_scores, observe
from pkt.attribution.neurons import best
from pkt.errors import RequestError
from pkt.late import Tensor, torch
from pkt.mapping import in_order, top_layers
from pkt.methods.laten_results import KINDS, LatenExtraction
from pkt.methods.readings import read_by
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.internals import NeuronShape, check_neurons, neuron_shape
from pkt.models.load import declared_roles
from pkt.models.pair import LanguageModel
from pkt.models.roles import roles_of
from pkt.models.sparse_delta import weight_by_neuron
from pkt.training.meter import Meter

Layers = Mapping[Kind, Sequence[int]]


def locate(bench: Workbench, rho: float, *, legacy_norm: bool) -> LatenExtraction:
    """Return the paired layers and neurons, with the teacher's weights.

    Args:
        bench: models and rows.
        rho: share of the student's neurons that change.
        legacy_norm: see `pkt.attribution.neurons.norm_divisor`.

    Raises:
        RequestError: a model whose neurons cannot be located, a teacher with fewer layers or neurons than are
            needed, or a share of no neuron.
    """
    counts = _checked_counts(bench, rho)
    depth = int(bench.student_config.num_hidden_layers)
    teacher = _observed(bench, "teacher", bench.teacher, bench.teacher_meter, legacy_norm)
    scores = {kind: layer_scores(teacher, kind) for kind in KINDS}
    layers = {kind: top_layers(scores[kind], depth) for kind in KINDS}
    theirs = _best(bench, "teacher", bench.teacher.arch, teacher, layers, counts)
    del teacher
    before = bench.student_meter.forward_tokens
    student = _observed(bench, "student", bench.student, bench.student_meter, legacy_norm)
    every = {kind: range(1, depth + 1) for kind in KINDS}
    own = _best(bench, "student", bench.student.arch, student, every, counts)
    return LatenExtraction(
        pairs=in_order(layers["ffn"]),
        attention_pairs=in_order(layers["attention"]),
        scores=scores["ffn"],
        attention_scores=scores["attention"],
        student=neuron_shape(bench.student_config),
        teacher_neurons=dict(theirs.items()),
        student_neurons=dict(own.items()),
        sources=_weights_of(bench.teacher.arch, layers, theirs),
        student_forward_tokens=bench.student_meter.forward_tokens - before,
    )


def _checked_counts(bench: Workbench, rho: float) -> dict[Kind, int]:
    """Return how many neurons of each kind to take per layer, after checks that need no weights."""
    pair, configs = bench.config.model, (bench.teacher_config, bench.student_config)
    declared = pair.teacher.roles, declared_roles(pair.student, pair.teacher)
    for who, config, roles in zip(("teacher", "student"), configs, declared, strict=True):
        check_neurons(config, roles_of(config, roles), who)
    theirs, own = (int(config.get_text_config().num_hidden_layers) for config in configs)
    if theirs < own:
        raise RequestError(
            f"method=laten pairs each of the student's {own} layers with one of the teacher's, which has {theirs}. "
            "Choose a deeper teacher."
        )
    shapes = neuron_shape(configs[0]), neuron_shape(configs[1])
    return {kind: _checked_count(kind, shapes, rho) for kind in KINDS}


def _checked_count(kind: Kind, shapes: tuple[NeuronShape, NeuronShape], rho: float) -> int:
    theirs, own = (getattr(shape, kind) for shape in shapes)
    count = count_of(own, rho)
    if 1 <= count <= theirs:
        return count
    share = f"method.rho={rho:g} of the student's {own} {kind} neurons per layer is"
    if count < 1:
        raise RequestError(f"{share} none; give at least {1 / own:.3g}.")
    raise RequestError(f"{share} {count}, and the teacher has {theirs}; give at most {theirs / own:.3g}.")


def count_of(total: int, rho: float) -> int:
    """Return n = int(total * rho), robust to the rounding of rho (100 * 0.29 is 29)."""
    return int(total * rho + 1e-9)


def _observed(bench: Workbench, who: str, model: LanguageModel, meter: Meter, legacy_norm: bool) -> Observed:
    encoded = read_by(bench, who, "extract")
    with bench.track(f"inside the {who}", len(encoded.lengths)) as advance:

        def listen(rows: int, tokens: int) -> None:
            meter.count(tokens, layers=model.arch.depth)
            advance(rows)

        return observe(model.arch, encoded, legacy_norm=legacy_norm, listen=listen)


def _best(
    bench: Workbench,
    who: str,
    arch: Architecture,
    observed: Observed,
    layers: Layers,
    counts: Mapping[Kind, int],
) -> dict[Kind, Tensor]:
    """Return kind -> (layers, n): the best neurons of each layer, best first."""
    ranked: dict[Kind, list[Tensor]] = {kind: [] for kind in layers}
    with bench.track(f"neurons of the {who}", sum(map(len, layers.values()))) as advance:
        for kind, numbers in layers.items():
            for number in numbers:
                ranked[kind].append(best(neuron_scores(arch, observed, number, kind), counts[kind]))
                advance(1)
    return {kind: torch.stack(neurons) for kind, neurons in ranked.items()}


def _weights_of(arch: Architecture, layers: Layers, neurons: Mapping[Kind, Tensor]) -> dict[str, Tensor]:
    """Return module -> (layers, n, D): the rows (up, v) and columns (down, o) of neurons, on the CPU."""
    shape = neuron_shape(arch.model.config)
    taken: dict[str, Tensor] = {}
    for kind, modules in KINDS.items():
        for module in modules:
            rows = []
            for number, neurons_n in zip(layers[kind], neurons[kind], strict=True):
                weight = weight_by_neuron(arch, number, module)
                index_n = shape.value_rows(neurons_n) if module == "v" else neurons_n
                rows.append(weight[index_n.to(weight.device)].cpu())
            taken[module] = torch.stack(rows)
    return taken
