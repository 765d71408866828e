"""Pairings by similarity against brute force over all non-crossing ones, and golden values."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from omegaconf import OmegaConf

from pkt.build import build
from pkt.errors import PktError, RequestError
from pkt.mapping import Cka, Monotone, depth_layer, spread

DEPTHS = [(20, 10), (40, 32), (32, 22), (6, 4), (4, 6), (1, 1), (1, 5), (5, 1), (12, 12)]


def plain(pairs):
    assert all(pair.weights == (1.0,) for pair in pairs)
    return {pair.student: pair.teacher[0] for pair in pairs}


def drawn(teacher_depth, student_depth, seed=0):
    """Scores and similarities of a kind that repeats values now and then."""
    draw = random.Random(seed)
    scores = [draw.randint(-2, 9) / 4 for _ in range(teacher_depth)]
    return scores, [[draw.randint(0, 20) / 20 for _ in range(student_depth)] for _ in range(teacher_depth)]


def non_crossing(teacher_depth, count):
    """All pairings in the order of depth, a teacher layer at most ceil(count / teacher_depth) times."""
    most = math.ceil(count / teacher_depth)
    for choice in itertools.combinations_with_replacement(range(1, teacher_depth + 1), count):
        if max(map(choice.count, choice)) <= most:
            yield choice


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [None, 1, 2])
@pytest.mark.parametrize("depths", [(7, 4), (4, 4), (4, 7), (2, 5), (1, 3), (6, 2), (1, 2)])
def test_monotone_equals_brute_force(depths, count, seed):
    scores, similarity = drawn(*depths, seed)
    students = spread(count, depths[1])

    def total(choice, weights, alike):
        return sum(weights[t - 1] * alike[t - 1][k - 1] for t, k in zip(choice, students, strict=True))

    ones = [[1.0] * depths[1]] * depths[0]
    for strategy, weights, alike in (
        (Monotone(count=count), scores, similarity),
        (Monotone(similarity="one", count=count), scores, ones),
        (Cka(monotone=True, count=count), [1.0] * depths[0], similarity),
    ):
        got = plain(strategy.pairs(*depths, scores, similarity))
        assert tuple(got) == students
        choices = list(non_crossing(depths[0], len(students)))
        assert tuple(got.values()) in choices
        best = max(total(choice, weights, alike) for choice in choices)
        assert total(tuple(got.values()), weights, alike) == pytest.approx(best)


def test_monotone_golden():
    similarity = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.7], [0.2, 0.3]]
    assert plain(Monotone().pairs(4, 2, [1.0, 2.0, 1.0, 3.0], similarity)) == {1: 2, 2: 4}  # 1.6 + 0.9
    assert plain(Monotone().pairs(4, 2, [1.0] * 4, similarity)) == {1: 1, 2: 3}
    assert plain(Monotone(similarity="one").pairs(4, 2, [5.0, 1.0, 2.0, 3.0])) == {1: 1, 2: 4}
    assert plain(Monotone(count=1).pairs(4, 2, [1.0, 2.0, 1.0, 3.0], similarity)) == {2: 4}


def test_cka_golden():
    crossing = [[0.1, 0.9], [0.8, 0.2], [0.7, 0.6]]
    assert plain(Cka().pairs(3, 2, similarity=crossing)) == {1: 2, 2: 1}
    assert plain(Cka(monotone=True).pairs(3, 2, similarity=crossing)) == {1: 2, 2: 3}
    assert plain(Cka(count=1).pairs(3, 2, similarity=crossing)) == {2: 1}
    one = [[0.1, 0.2, 0.3, 0.4, 0.5]]
    assert plain(Cka(monotone=True).pairs(1, 5, similarity=one)) == dict.fromkeys(range(1, 6), 1)
    deep = [[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]]  # 3 student layers, 2 teacher layers: each at most twice
    assert plain(Cka(monotone=True).pairs(2, 3, similarity=deep)) == {1: 1, 2: 1, 3: 2}


def test_scale_of_scores_does_not_matter():
    scores, similarity = drawn(9, 5, seed=3)
    expected = Monotone().pairs(9, 5, scores, similarity)
    for scale in (2.0**-200, 2.0**-8, 2.0**200):
        assert Monotone().pairs(9, 5, [scale * score for score in scores], similarity) == expected


@pytest.mark.parametrize("depths", DEPTHS)
def test_ties_go_to_the_same_relative_depth(depths):
    alike = [[0.3] * depths[1]] * depths[0]
    expected = {k: depth_layer(k, *depths) for k in range(1, depths[1] + 1)}
    assert plain(Cka().pairs(*depths, similarity=alike)) == expected
    if depths[0] >= depths[1]:
        assert plain(Cka(monotone=True).pairs(*depths, similarity=alike)) == expected
        assert plain(Monotone().pairs(*depths, [0.1] * depths[0], alike)) == expected
        assert plain(Monotone(similarity="one").pairs(*depths, [0.0] * depths[0])) == expected


def test_deep_models_are_paired_at_once():
    scores, similarity = drawn(120, 100)
    assert len(Monotone().pairs(120, 100, scores, similarity)) == 100


@pytest.mark.parametrize("strategy", [Monotone(), Cka(), Cka(monotone=True)])
def test_similarity_refusals(strategy):
    for similarity, got in ((None, "none"), ([[1.0, 1.0]], "1 rows"), ([[1.0], [1.0]], r"2 rows of \[1\]")):
        with pytest.raises(ValueError, match=rf"\(2 x 2\), got {got}"):
            strategy.pairs(2, 2, [1.0, 1.0], similarity)
    with pytest.raises(PktError, match="NaN or infinite"):
        strategy.pairs(2, 2, [1.0, 1.0], [[1.0, 1.0], [float("nan"), 1.0]])


def test_monotone_refusals():
    with pytest.raises(RequestError, match="got 'euclid'; allowed: cka, one"):
        build(OmegaConf.create({"_target_": "pkt.mapping.Monotone", "similarity": "euclid"}))
    with pytest.raises(ValueError, match="got none"):
        Monotone(similarity="one").pairs(2, 2)
    with pytest.raises(PktError, match="NaN or infinite"):
        Monotone(similarity="one").pairs(2, 2, [1.0, float("inf")])


def test_what_strategies_need():
    assert Monotone().needs_scores
    assert Monotone().needs_similarity
    assert not Monotone(similarity="one").needs_similarity
    assert Cka().needs_similarity
    assert not Cka().needs_scores
