"""Maps that go on learning: the trained one against its dense formula, the refitted one against a slow reference."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pkt.config import Config, OptimConfig
from pkt.data.batching import collate
from pkt.data.encoding import Encoded
from pkt.mapping import Depth, LayerPair
from pkt.methods.base import Choice
from pkt.methods.combinations import refusal
from pkt.methods.hidden_kd import HiddenKd
from pkt.methods.layer_results import LayerAlignment, LayerExtraction
from pkt.methods.semalign import SemAlign
from pkt.methods.semalign_fisher import SemAlignFisher
from pkt.methods.semalign_geometry import SemAlignGeometry
from pkt.methods.task import Task
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.objectives import Cosine as CosineTerm
from pkt.objectives import Fisher, Geometry, MeanSquare, OutputHead
from pkt.semantics import AlignmentMap, Cosine, Procrustes, RandomMap, Ridge, closed_form, learns
from pkt.semantics.learning_map import LearningMap
from pkt.training.capture import capture
from pkt.training.forward import Seen
from pkt.training.passes import Read
from pkt.training.trainable import Update, make_trainable
from terms import mean_of, objective
from tiny import tiny_model

PAIRS = {1: 2, 3: 5}
SHAPES = [(12, 5), (5, 12)]  # the teacher's width, the student's


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def map_of(wide: int, narrow: int, *, normalise: bool) -> AlignmentMap:
    if normalise:
        return AlignmentMap(weight=normal(narrow, wide), normalise=True)
    return AlignmentMap(weight=normal(narrow, wide), bias=normal(narrow), mean=normal(wide, seed=1))


@pytest.mark.parametrize(("wide", "narrow"), SHAPES)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("term", [CosineTerm(), MeanSquare()])
def test_the_gradient_of_a_trained_map_is_that_of_the_dense_formula(wide, narrow, normalise, term):
    start, share = map_of(wide, narrow, normalise=normalise), 0.3
    teacher, student = normal(7, wide, seed=2), normal(7, narrow, seed=3)
    map_ = LearningMap(start, share=share)
    with torch.no_grad():
        map_.change.copy_(normal(narrow, wide, seed=4))
    mean_of(term, student, map_(teacher)).backward()

    change = normal(narrow, wide, seed=4).double().requires_grad_(True)
    x = teacher.double()
    x = x / x.norm(dim=-1, keepdim=True) if normalise else x - start.mean
    target = x @ (start.weight.double() + share * change).T + (0 if normalise else start.bias)
    if isinstance(term, MeanSquare):
        loss = (student - target).square().mean()
    else:
        loss = (1 - (student * target).sum(-1) / (student.norm(dim=-1) * target.norm(dim=-1))).mean()
    loss.backward()
    torch.testing.assert_close(map_.change.grad, change.grad.float(), rtol=1e-4, atol=1e-6)
    assert [name for name, _ in map_.named_parameters()] == ["change"]


@pytest.mark.parametrize("term", [CosineTerm(), MeanSquare(), Fisher(), Geometry()])
def test_a_term_says_whether_targets_get_a_gradient(term):
    arch = Architecture.of(tiny_model("llama", width=32))
    states, targets = (normal(6, 32, seed=seed).requires_grad_(True) for seed in (0, 1))
    mean_of(
        term, states, targets, head=OutputHead(arch=arch), sequence=torch.zeros(6, dtype=torch.int64)
    ).backward()
    assert states.grad is not None
    assert (targets.grad is None) == term.needs[0].constant


@pytest.mark.parametrize(("wide", "narrow"), SHAPES)
@pytest.mark.parametrize("normalise", [False, True])
def test_a_map_without_a_learning_rate_stays_what_it_was(wide, narrow, normalise):
    start, teacher = map_of(wide, narrow, normalise=normalise), normal(6, wide, seed=2)
    map_ = LearningMap(start, share=0.0)
    optimiser = torch.optim.AdamW(map_.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        map_(teacher).square().sum().backward()
        optimiser.step()
    assert torch.equal(map_(teacher), start(teacher))
    assert torch.equal(LearningMap(start, share=None)(teacher), start(teacher))


def test_one_step_moves_the_map_by_its_share_of_the_learning_rate():
    start, teacher = map_of(6, 4, normalise=False), normal(9, 6, seed=2)
    map_ = LearningMap(start, share=0.25)
    optimiser = torch.optim.AdamW(map_.parameters(), lr=0.02, eps=1e-12)
    map_(teacher).square().sum().backward()
    optimiser.step()
    moved = (map_.now.weight - start.weight).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.25 * 0.02), rtol=1e-3, atol=1e-6)


def test_another_fit_changes_a_map_in_place():
    map_, other = LearningMap(map_of(6, 4, normalise=False), share=None), map_of(6, 4, normalise=False)
    kept = dict(map_.named_buffers())
    map_.put(AlignmentMap(weight=2 * other.weight, bias=3 * other.bias, mean=4 * other.mean))
    assert kept["weight"] is map_.weight
    for name, factor in (("weight", 2), ("bias", 3), ("mean", 4)):
        assert torch.equal(kept[name], factor * getattr(other, name))


def test_a_longer_map_maps_to_longer_states():
    map_, x = map_of(6, 4, normalise=False), normal(5, 6, seed=5)
    torch.testing.assert_close(map_.scaled(3.0)(x), 3.0 * map_(x))
    assert map_.scaled(1.0) is map_


def test_which_maps_learn():
    still = (Ridge(), Cosine(), Procrustes(), RandomMap(), None)
    assert not any(map(learns, still))
    learning = (
        Ridge(refit="epochs"),
        Ridge(trainable=True),
        Cosine(trainable=True),
        Procrustes(refit="stages"),
    )
    assert all(map(learns, learning))
    assert closed_form(Ridge(alpha=0.1, refit="epochs")) == Ridge(alpha=0.1)
    assert closed_form(Cosine(rcond=0.1, trainable=True, map_lr=0.7)) == Cosine(rcond=0.1)
    assert closed_form(RandomMap(seed=3)) == RandomMap(seed=3)


def test_settings_that_exclude_each_other():
    with pytest.raises(ValueError, match="would throw away at each fit what the map had learned"):
        Ridge(trainable=True, refit="epochs")
    with pytest.raises(ValueError, match=r"top_k=3 has none: set top_k=null"):
        Cosine(trainable=True, top_k=3)
    with pytest.raises(ValueError, match=r"map_lr is a number from 0, got -1"):
        Ridge(map_lr=-1)


FRONTIER = SemAlign(schedule="frontier", interface="block")
JOINT = SemAlign(interface="block")
TRAINED = Ridge(trainable=True)


@pytest.mark.parametrize(
    ("method", "semantics", "terms", "message"),
    [
        (JOINT, Ridge(refit="stages"), {"cosine": {}}, "set method.schedule=frontier"),
        (FRONTIER, Ridge(refit="epochs"), {"cosine": {}}, "set semantics.refit=stages"),
        (SemAlignFisher(interface="block"), TRAINED, {"fisher": {}}, "would train nothing"),
        (SemAlignGeometry(interface="block"), TRAINED, {"geometry": {}}, "would train nothing"),
        (JOINT, Ridge(refit="epochs"), {"fisher": {}}, None),
        (FRONTIER, Procrustes(refit="stages"), {"cosine": {}}, None),
        (FRONTIER, TRAINED, {"cosine": {}}, None),
        (JOINT, Cosine(trainable=True), {"mean_square": {}}, None),
        (HiddenKd(), TRAINED, {"geometry": {}}, None),  # which reads no map
    ],
)
def test_what_a_learning_map_goes_with(method, semantics, terms, message):
    choice = Choice(mapping=Depth(), semantics=semantics, objective=objective(**terms, ce={}))
    reason = refusal(method, choice)
    assert reason is None if message is None else message in str(reason)


def rows(count: int, seed: int) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(6, 14, (count,), generator=generator).tolist()
    ids = [torch.randint(3, 320, (length,), generator=generator).tolist() for length in lengths]
    return Encoded(input_ids=ids, prompt_lengths=[length // 2 for length in lengths])


def task_of(
    family: str, semantics: Ridge | Procrustes, positions: str
) -> tuple[Task, dict[int, AlignmentMap]]:
    """A training of a student that was changed since `align`, and the maps of before."""
    arches = {
        "teacher": Architecture.of(tiny_model(family, depth=6, width=48, seed=1)),
        "student": Architecture.of(tiny_model(family, depth=4, width=32, seed=2, tied=family == "qwen3")),
    }
    bench = Workbench(
        config=Config(optim=OptimConfig(lr=1e-3, epochs=2, batch_size=5)),
        mapping=None,
        semantics=semantics,
        objective=objective(cosine={"positions": positions}, ce={}),
        cache_dir=None,
    )
    for role, arch in arches.items():
        bench.__dict__[role] = SimpleNamespace(model=arch.model, arch=arch)
    bench.__dict__["one_vocabulary"] = True
    bench._encoded |= {"align": rows(11, 6), "train": rows(9, 4), "validation": rows(4, 5)}

    def states(role: str, layers: dict[int, int]) -> dict[int, Tensor]:
        arch = arches[role]
        reads = {k: Read(layers=(layer,), width=arch.width) for k, layer in layers.items()}
        how = {"interface": Interface.block, "positions": positions, "batch_size": 5}
        return capture(arch, bench.encoded("align"), reads, **how)

    teacher, student = states("teacher", PAIRS), states("student", {k: k for k in PAIRS})
    maps = {k: semantics.fitted((teacher[k].flat(), student[k].flat()), torch.device("cpu")) for k in PAIRS}
    alignment = LayerAlignment(
        pairs=tuple(LayerPair(student=k, teacher=(layer,)) for k, layer in PAIRS.items()),
        interface="block",
        positions=positions,
        maps=maps,
        targets={"align": teacher, "train": teacher, "validation": teacher},
    )
    trainable = make_trainable(arches["student"], Update(kind="full"), [1, 3])
    return Task(bench=bench, trainable=trainable, alignment=alignment), maps


@pytest.mark.parametrize("semantics", [Ridge(refit="epochs"), Procrustes(refit="epochs")])
def test_a_refit_before_the_first_step_is_the_first_fit(semantics):
    task, maps = task_of("llama", semantics, "all")
    task.refit([1, 3])
    for k, map_ in maps.items():
        for name, buffer in task.maps[k].named_buffers():
            assert torch.equal(buffer, getattr(map_, name))


def test_shifted_targets_are_those_of_the_next_position():
    task, _ = task_of("llama", Ridge(), "all")
    states = task.alignment.targets["train"]
    for own in SemAlign(interface="block", targets="shifted")._orders(task.bench, states).values():
        assert own.tolist() == [*range(1, len(own)), 0]


def test_shuffled_targets_are_drawn_by_the_seed_whether_the_map_learns_or_not():
    task, _ = task_of("llama", Ridge(), "all")
    bench, shuffled = task.bench, SemAlign(interface="block", targets="shuffled")
    bench.__dict__ |= {
        "pair_report": SimpleNamespace(teacher_ids=torch.arange(320), student_ids=torch.arange(320)),
        "cut": None,
    }
    extraction = LayerExtraction(pairs=task.alignment.pairs, interface="block")
    own = SemAlign(interface="block").align(bench, extraction, None).targets["train"][3].flat()

    def drawn(seed: int, semantics: Ridge) -> LayerAlignment:
        bench.config.seed, bench.semantics = seed, semantics
        return shuffled.align(bench, extraction, None)

    first, second = (drawn(seed, Ridge()).targets["train"][3].flat() for seed in (0, 1))
    assert not torch.equal(first, second)
    for targets in (first, second):
        assert not torch.equal(targets, own)
        torch.testing.assert_close(targets.sort(0).values, own.sort(0).values)
    learning = drawn(1, Ridge(refit="epochs"))
    torch.testing.assert_close(learning.maps[3](learning.targets["train"][3].flat()), second)
    paired = learning.targets["align"][3].flat()
    assert torch.equal(paired, task.alignment.targets["align"][3].flat())  # fits see the right pairs


@pytest.mark.parametrize(("family", "positions"), [("qwen3", "all"), ("gpt2", "answer")])
def test_a_refit_is_ridge_on_the_student_as_it_is(family, positions):
    task, maps = task_of(family, Ridge(alpha=0.1, refit="epochs"), positions)
    arch, encoded = task.bench.student.arch, task.bench.encoded("align")
    with torch.no_grad():
        for parameter in arch.layer(1).parameters():
            parameter.mul_(1.3)
    before = task.bench.student_meter.forward_tokens
    metrics = task.refit([3])
    assert task.bench.student_meter.forward_tokens - before == sum(encoded.lengths)
    assert torch.equal(task.maps[1].weight, maps[1].weight)  # nobody asked for it

    student = []
    for ids, prompt in zip(encoded.input_ids, encoded.prompt_lengths, strict=True):  # row by row, every layer
        with torch.no_grad():
            hidden = arch.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0]
        student.append(hidden if positions == "all" else hidden[prompt - 1 : -1])
    y, x = torch.cat(student).double(), task.alignment.targets["align"][3].flat().double()
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    penalty = 0.1 * centred_x.square().sum() / x.shape[1]
    stacked = torch.cat([centred_x, penalty.sqrt() * torch.eye(x.shape[1], dtype=torch.float64)])
    weight = torch.linalg.lstsq(
        stacked, torch.cat([centred_y, y.new_zeros(x.shape[1], y.shape[1])])
    ).solution.T
    torch.testing.assert_close(task.maps[3].weight.double(), weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(task.maps[3].bias.double(), y.mean(0), rtol=1e-4, atol=1e-4)
    residual = (centred_y - centred_x @ weight.T).square().sum() / centred_y.square().sum()
    assert metrics == {"map_explained_variance_3": pytest.approx(float(1 - residual), abs=1e-4)}


def test_targets_go_through_the_map_of_their_layer_as_it_is():
    task, maps = task_of("llama", Ridge(refit="epochs"), "answer")
    loss = task._loss(task.bench.objective, "train", [1, 3], None)
    task.bench._encoded["train"] = task.bench.encoded("align")  # whose states these are
    batch = collate(task.bench.encoded("align"), [2, 0])
    seen = Seen(loss=loss, batch=batch)
    where = seen.where("answer", taught=True)
    first = loss.targets.of(3, seen.given, batch, where)
    raw = task.alignment.targets["align"][3].of([2, 0])
    torch.testing.assert_close(first, maps[3](raw))
    task.maps[3].put(maps[3].scaled(2.0))
    torch.testing.assert_close(loss.targets.of(3, seen.given, batch, where), maps[3].scaled(2.0)(raw))
