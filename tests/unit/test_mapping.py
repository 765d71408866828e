"""Golden values of the specification, and what every strategy has to hold for any two depths."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pkt.build import build
from pkt.errors import PktError, RequestError
from pkt.mapping import (
    Cka,
    Critical,
    Depth,
    Explicit,
    Interpolate,
    Last,
    LayerPair,
    Mapping,
    Monotone,
    RandomPairs,
    of_student,
    top_layers,
)

CONF = Path(__file__).resolve().parents[2] / "conf" / "mapping"
DEPTHS = [(20, 10), (40, 32), (32, 22), (6, 4), (4, 6), (1, 1), (1, 5), (5, 1), (12, 12)]


def plain(pairs):
    assert all(pair.weights == (1.0,) for pair in pairs)
    return {pair.student: pair.teacher[0] for pair in pairs}


def scores_for(depth, *best):
    return [100.0 - best.index(layer) if layer in best else 0.0 for layer in range(1, depth + 1)]


def test_depth_golden():
    assert plain(Depth().pairs(20, 10)) == {k: 2 * k for k in range(1, 11)}
    forty = plain(Depth().pairs(40, 32))
    assert [forty[k] for k in (1, 4, 31, 32)] == [1, 5, 38, 40]
    mixed = plain(Depth().pairs(32, 22))
    assert (mixed[1], mixed[22]) == (1, 32)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (10,)), (2, (5, 10)), (3, (3, 7, 10)), (4, (3, 5, 8, 10)), (10, tuple(range(1, 11)))],
)
def test_depth_count_is_spread_and_keeps_the_last_layer(count, expected):
    assert tuple(plain(Depth(count=count).pairs(20, 10))) == expected


@pytest.mark.parametrize("count", range(1, 33))
def test_spread_layers_are_distinct(count):
    layers = [pair.student for pair in Depth(count=count).pairs(40, 32)]
    assert len(set(layers)) == count
    assert layers == sorted(layers)
    assert layers[-1] == 32


@pytest.mark.parametrize(
    ("depths", "critical", "expected"),
    [
        ((40, 32), 1, (1, 1)),
        ((40, 32), 4, (5, 4)),  # depth(3) = 3 < 4 <= depth(4) = 5: the pair is (5, 4), not (4, 4)
        ((40, 32), 40, (40, 32)),
        ((20, 10), 7, (8, 4)),
        ((20, 10), 8, (8, 4)),
        ((20, 10), 20, (20, 10)),
        ((32, 22), 32, (32, 22)),
        ((4, 6), 2, (2, 3)),
        ((5, 1), 2, (5, 1)),
    ],
)
def test_critical_golden(depths, critical, expected):
    (pair,) = Critical().pairs(*depths, scores_for(depths[0], critical))
    assert (*pair.teacher, pair.student) == expected


@pytest.mark.parametrize("depths", DEPTHS)
def test_critical_matches_the_definition(depths):
    teacher_depth, student_depth = depths
    for best in range(1, teacher_depth + 1):
        (pair,) = Critical().pairs(*depths, scores_for(teacher_depth, best))
        reaching = [
            k for k in range(1, student_depth + 1) if max(1, teacher_depth * k // student_depth) >= best
        ]
        assert pair.student == min(reaching, default=student_depth)
        assert pair.teacher == (max(1, teacher_depth * pair.student // student_depth),)


def test_critical_keeps_depth_order_and_merges_duplicates():
    pairs = Critical(top_n=3).pairs(20, 10, scores_for(20, 15, 7, 8))
    assert [(pair.teacher[0], pair.student) for pair in pairs] == [(8, 4), (16, 8)]


def test_critical_breaks_ties_towards_shallow():
    (pair,) = Critical().pairs(4, 4, [1.0, 3.0, 3.0, 0.0])
    assert pair.student == 2


def test_critical_takes_the_highest_not_the_largest_magnitude():
    (pair,) = Critical().pairs(3, 3, [-9.0, -1.0, -2.0])
    assert pair.student == 2


def test_top_layers():
    assert top_layers([0.1, 0.5, -1.0, 0.5], 2) == (2, 4)
    assert top_layers([0.2, 0.2, 0.2], 2) == (1, 2)
    for scores, count in (([0.0], 2), ([], 0)):
        with pytest.raises(ValueError, match="cannot be chosen"):
            top_layers(scores, count)


def test_interpolate_golden():
    assert plain(Interpolate().pairs(20, 10)) == {k: 2 * k for k in range(1, 11)}
    pairs = {pair.student: pair for pair in Interpolate().pairs(40, 32)}
    assert pairs[1] == LayerPair(student=1, teacher=(1, 2), weights=(0.75, 0.25))
    assert pairs[4] == LayerPair(student=4, teacher=(5,))
    assert pairs[31] == LayerPair(student=31, teacher=(38, 39), weights=(0.25, 0.75))
    assert pairs[32] == LayerPair(student=32, teacher=(40,))


@pytest.mark.parametrize("depths", DEPTHS)
def test_interpolate_matches_the_formula(depths):
    teacher_depth, student_depth = depths
    for pair in Interpolate().pairs(*depths):
        assert sum(pair.weights) == pytest.approx(1.0)
        u = teacher_depth * pair.student / student_depth
        a = min(max(int(u), 1), max(teacher_depth - 1, 1))
        lam = min(max(u - a, 0.0), 1.0)
        expected = (1 - lam) * a + lam * min(a + 1, teacher_depth)  # linear in the layer number
        got = sum(w * layer for w, layer in zip(pair.weights, pair.teacher, strict=True))
        assert got == pytest.approx(expected)


def test_interpolate_count():
    assert [pair.student for pair in Interpolate(count=2).pairs(40, 32)] == [16, 32]


def test_last():
    assert plain(Last().pairs(40, 32)) == {32: 40}


def test_explicit_is_teacher_first_and_keeps_its_order():
    pairs = Explicit(layers=[[18, 9], [4, 2]]).pairs(20, 10)
    assert [(pair.teacher, pair.student) for pair in pairs] == [((18,), 9), ((4,), 2)]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ([21, 1], r"teacher layer 21 does not exist; the teacher's layers are 1 to 20"),
        ([0, 1], r"teacher layer 0 does not exist"),
        ([1, 11], r"student layer 11 does not exist; the student's layers are 1 to 10"),
        ([1, -1], r"student layer -1"),
    ],
)
def test_explicit_out_of_range(pair, message):
    with pytest.raises(RequestError, match=message):
        Explicit(layers=[pair]).pairs(20, 10)


@pytest.mark.parametrize("layers", [[], [[1]], [[1, 2, 3]]])
def test_explicit_malformed(layers):
    with pytest.raises(ValueError, match=r"list of \[teacher layer, student layer\]"):
        Explicit(layers=layers)


def test_explicit_student_twice():
    with pytest.raises(ValueError, match="may occur once"):
        Explicit(layers=[[1, 2], [3, 2]])


def test_random_is_seeded():
    first = RandomPairs(seed=3, count=4).pairs(20, 10)
    assert first == RandomPairs(seed=3, count=4).pairs(20, 10)
    assert any(RandomPairs(seed=seed, count=4).pairs(20, 10) != first for seed in range(4, 8))


def test_random_pairs_every_layer_where_no_count_is_given():
    pairs = RandomPairs(seed=3, count=None).pairs(6, 4)
    assert [pair.student for pair in pairs] == [1, 2, 3, 4]
    assert pairs == RandomPairs(seed=3, count=4).pairs(6, 4)


def test_random_does_not_repeat_until_it_has_to():
    pairs = RandomPairs(seed=1, count=6).pairs(4, 6)
    teachers = [pair.teacher[0] for pair in pairs]
    assert [pair.student for pair in pairs] == [1, 2, 3, 4, 5, 6]
    assert sorted(teachers[:4]) == [1, 2, 3, 4]


def drawn(teacher_depth, student_depth):
    """Scores and similarities."""
    draw = random.Random(0)
    scores = [draw.random() for _ in range(teacher_depth)]
    return scores, [[draw.random() for _ in range(student_depth)] for _ in range(teacher_depth)]


@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize(
    "strategy",
    [
        Depth(),
        Critical(),
        Interpolate(),
        Last(),
        Explicit(layers=[[1, 1]]),
        RandomPairs(),
        Monotone(),
        Monotone(similarity="one"),
        Cka(),
        Cka(monotone=True),
    ],
)
def test_every_strategy_stays_in_range(strategy, depths):
    scores = [float(layer) for layer in range(depths[0])] if strategy.needs_scores else None
    similarity = drawn(*depths)[1] if strategy.needs_similarity else None
    pairs = strategy.pairs(*depths, scores, similarity)
    assert isinstance(strategy, Mapping)
    assert pairs
    assert len({pair.student for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert 1 <= pair.student <= depths[1]
        assert all(1 <= layer <= depths[0] for layer in pair.teacher)
    with pytest.raises(ValueError, match="depths are at least 1"):
        strategy.pairs(0, 1, scores)


@pytest.mark.parametrize("strategy", [Depth, Interpolate, RandomPairs, Monotone, Cka])
def test_count_beyond_the_student(strategy):
    with pytest.raises(RequestError, match="the student has 10 layers; choose 1 to 10"):
        strategy(count=11).pairs(20, 10, *drawn(20, 10))


def test_top_n_beyond_the_teacher():
    with pytest.raises(RequestError, match="the teacher has 2 layers; choose 1 to 2"):
        Critical(top_n=3).pairs(2, 2, [1.0, 2.0])


@pytest.mark.parametrize("make", [Depth, Interpolate, RandomPairs, Monotone, Cka])
def test_count_below_one(make):
    with pytest.raises(ValueError, match="count is a number from 1, got 0"):
        make(count=0)


def test_critical_refusals():
    with pytest.raises(ValueError, match="top_n is a number from 1, got 0"):
        Critical(top_n=0)
    with pytest.raises(ValueError, match="got none"):
        Critical().pairs(2, 2)
    with pytest.raises(ValueError, match="got 3"):
        Critical().pairs(2, 2, [1.0, 2.0, 3.0])
    with pytest.raises(PktError, match="NaN or infinite"):
        Critical().pairs(2, 2, [1.0, float("nan")])


def test_pair_refusals():
    with pytest.raises(ValueError, match="numbered from 1"):
        LayerPair(student=0, teacher=(1,))
    with pytest.raises(ValueError, match="at least one teacher layer"):
        LayerPair(student=1, teacher=(), weights=())
    with pytest.raises(ValueError, match="one weight per teacher layer"):
        LayerPair(student=1, teacher=(1, 2))


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_option_builds(path):
    node = OmegaConf.create({"seed": 0, "mapping": OmegaConf.load(path)}).mapping
    if path.stem == "explicit":
        with pytest.raises(RequestError, match="layers is not set"):
            build(node)
        node.layers = [[2, 1]]
    strategy = build(node, Mapping)
    assert type(strategy).__name__.lower().removesuffix("pairs") == path.stem
    assert of_student(strategy, (1, 3, 5, 8), 8).pairs(8, 4, *drawn(8, 4))
