"""Paired statistics against brute force, known values, and what an interval promises."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pkt.evaluation.paired import Answers, difference, gap_interval, interval, mcnemar, resample
from pkt.evaluation.statistics import gap_closed, mean, over_seeds, ratio


def right(value_KN) -> Answers:
    value_KN = np.asarray(value_KN, dtype=float)
    return Answers(value_KN=value_KN, weight_KN=np.ones_like(value_KN))


def brute_p(b: int, c: int) -> float:
    """Two-sided p from all 2^(b + c) ways in which the discordant rows could have fallen."""
    falls = [sum(way) for way in itertools.product((0, 1), repeat=b + c)]
    return min(1.0, 2 * sum(fall <= min(b, c) for fall in falls) / len(falls))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (3, 0), (2, 2), (5, 1), (3, 8)])
def test_mcnemar_matches_enumeration_and_is_symmetric(b: int, c: int):
    first = [True] * b + [False] * c + [True, True, False]
    second = [False] * b + [True] * c + [True, True, False]
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(brute_p(b, c))


def test_mcnemar_matches_published_numbers():
    # Fagerland, Lydersen and Laake 2013, airway hyper-responsiveness: 1 and 7 discordant pairs
    first, second = [True] + [False] * 7, [False] + [True] * 7
    assert mcnemar(first, second) == pytest.approx(0.0703, abs=5e-5)


def test_mcnemar_of_thousands_of_rows_stays_a_number():
    first, second = [True] * 3000 + [False] * 1000, [False] * 3000 + [True] * 1000
    assert 0 <= mcnemar(first, second) < 1e-200
    assert mcnemar([True, False] * 2000, [False, True] * 2000) == 1
    with pytest.raises(ValueError, match="same rows"):
        mcnemar([True], [True, False])


def test_resamples_have_the_closed_forms_error_and_centre():
    rng = np.random.default_rng(1)
    value, weight = rng.normal(2, 1, 60), rng.uniform(1, 5, 60)
    got = resample([right([value]), Answers(value_KN=value[None], weight_KN=weight[None])], draws=20_000)
    for column, estimate in enumerate([mean(value.tolist()), ratio(value.tolist(), weight.tolist())]):
        assert got.scores_KT[0, column] == pytest.approx(estimate.value)
        assert got.draws_BT[:, column].mean() == pytest.approx(estimate.value, abs=0.05 * estimate.stderr)
        assert got.draws_BT[:, column].std(ddof=1) == pytest.approx(estimate.stderr, rel=0.04)


def test_resamples_match_a_loop_over_the_same_draws():
    rng = np.random.default_rng(2)
    value, weight = rng.normal(size=(3, 7)), rng.uniform(1, 2, size=(3, 7))
    got = resample([Answers(value_KN=value, weight_KN=weight)], draws=5, seed=4)
    drawn = np.random.default_rng([4, 0]).integers(0, 7, size=(5, 7), dtype=np.int32)
    centre = np.mean([value[k].sum() / weight[k].sum() for k in range(3)])
    for b, rows in enumerate(drawn):
        plain = np.mean([value[k][rows].sum() / weight[k][rows].sum() for k in range(3)])
        assert got.draws_BT[b, 0] == pytest.approx(centre + (plain - centre) * math.sqrt(7 / 6))


def test_tasks_are_resampled_apart_and_weigh_the_same():
    rng = np.random.default_rng(3)
    small, large = rng.random(40) < 0.5, rng.random(4000) < 0.9
    got = resample([right([small]), right([large])], draws=4000)
    errors = [mean(task.astype(float).tolist()).stderr for task in (small, large)]
    assert got.draws_BT.mean(1).std() == pytest.approx(math.hypot(*errors) / 2, rel=0.05)
    assert abs(np.corrcoef(got.draws_BT.T)[0, 1]) < 0.05


def test_what_rows_have_in_common_cancels():
    rng = np.random.default_rng(4)
    hard = rng.random(500) < 0.5
    worse, better = hard.copy(), hard.copy()
    better[np.flatnonzero(~hard)[:10]] = True
    got = difference(resample([right([better])]), resample([right([worse])]))
    assert got.value == pytest.approx(0.02)
    assert 0 < got.low < 0.02 < got.high < 0.04  # each accuracy alone: +- 0.044
    pairs = mean((better.astype(float) - worse).tolist())
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * pairs.stderr, rel=0.08)


def test_difference_mirrors_when_the_arms_swap():
    rng = np.random.default_rng(5)
    one, two = (resample([right(rng.random((k, 200)) < 0.6)]) for k in (3, 2))
    there, back = difference(one, two), difference(two, one)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_equal_arms_differ_by_nothing():
    arm = resample([right(np.eye(2, 9))])
    alone = resample([right(np.eye(1, 9))])
    assert difference(alone, alone).holds_zero
    assert (difference(alone, alone).low, difference(alone, alone).high) == (0, 0)
    assert difference(arm, arm).holds_zero


def test_the_same_seed_gives_the_same_bits_and_large_tasks_come_in_chunks():
    task = right([np.arange(300_000) % 3 == 0])
    one, two = resample([task], draws=3), resample([task], draws=3)
    assert (one.draws_BT == two.draws_BT).all()
    assert not (resample([task], draws=3, seed=1).draws_BT == one.draws_BT).any()
    assert len(set(one.draws_BT[:, 0])) == 3


def test_runs_that_differ_widen_the_interval_by_students_t():
    flat = np.zeros(2000)  # the rows say nothing: what is left is a t-interval over runs
    scores = np.array([0.1, 0.2, 0.6])
    got = interval(0.3, flat + 0.3, [scores])
    half = 4.303 * scores.std(ddof=1) / math.sqrt(3)
    assert (got.low, got.high) == pytest.approx((0.3 - half, 0.3 + half), rel=0.1)
    alone = interval(0.3, flat + 0.3, [scores[:1]])
    assert (alone.low, alone.high) == (0.3, 0.3)


def test_an_arm_of_one_run_takes_the_spread_of_the_other():
    draws, scores = np.zeros(2000), np.array([-0.1, 0.0, 0.1])
    lent, none = interval(0, draws, [scores, scores[:1]]), interval(0, draws, [scores])
    assert lent.high == pytest.approx(none.high * 2, rel=0.1)  # 1/3 + 1/1 = 4 x 1/3


def simulated(rng: np.random.Generator, runs: int, ease: np.ndarray, lift: float, spread: float) -> Answers:
    level = lift + rng.normal(0, spread, (runs, 1)) + ease + rng.normal(0, 0.5, (runs, len(ease)))
    return right(level > 0)


def chance(lift: float, spread: float) -> float:
    return 0.5 * (1 + math.erf(lift / math.sqrt(2 * (1.5**2 + 0.5**2 + spread**2))))


@pytest.mark.parametrize(("runs", "spread"), [((1, 1), 0.0), ((3, 3), 0.1), ((1, 4), 0.1)])
def test_the_interval_covers_the_truth_as_often_as_it_says(runs: tuple[int, int], spread: float):
    rng, covered, trials = np.random.default_rng(6), 0, 200
    truth = chance(0.2, spread) - chance(0.0, spread)
    for _ in range(trials):
        eases = [rng.normal(0, 1.5, rows) for rows in (150, 100)]
        first, second = (
            resample([simulated(rng, k, ease, lift, spread) for ease in eases], draws=400)
            for k, lift in zip(runs, (0.2, 0.0), strict=True)
        )
        got = difference(first, second)
        covered += got.low <= truth <= got.high
    assert 0.91 <= covered / trials <= 0.995


def test_the_gaps_interval_counts_correlation_and_is_honest_about_small_gaps():
    rng = np.random.default_rng(7)
    ease = rng.normal(0, 1.5, 800)
    arms = {
        role: right([ease + lift + rng.normal(0, 0.3, 800) > 0])
        for role, lift in (("teacher", 1.0), ("student", -0.5), ("transferred", 0.3))
    }
    estimates = {role: mean(arm.value_KN[0].tolist()) for role, arm in arms.items()}
    apart = gap_closed(**estimates)
    got = gap_interval(**{role: resample([arm]) for role, arm in arms.items()})
    assert got.value == pytest.approx(apart.value)
    assert got.low < got.value < got.high
    assert got.high - got.low < 0.9 * 2 * 1.96 * apart.stderr


def test_the_gaps_interval_matches_a_slow_bootstrap():
    rng = np.random.default_rng(8)
    t, s, x = (rng.random((tasks, 120)) < p for tasks, p in ((2, 0.9), (2, 0.4), (2, 0.7)))
    got = gap_interval(
        teacher=resample([right([row]) for row in t]),
        student=resample([right([row]) for row in s]),
        transferred=resample([right([row]) for row in x]),
    )
    shares = []
    for _ in range(3000):
        one = []
        for task in range(2):
            rows = rng.integers(0, 120, 120)
            low, high = s[task][rows].mean(), t[task][rows].mean()
            one.append((x[task][rows].mean() - low) / (high - low))
        shares.append(np.mean(one))
    assert (got.low, got.high) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.02)


def test_no_gap_has_no_interval():
    same, better = resample([right([[0, 1] * 20])]), resample([right([[1, 1] * 20])])
    nothing = gap_interval(teacher=same, student=same, transferred=better)
    assert math.isnan(nothing.value)
    assert nothing.holds_zero
    none = gap_interval(teacher=same.only([]), student=same.only([]), transferred=same.only([]))
    assert math.isnan(none.value)
    tiny = resample([right([[0, 1] * 19 + [1, 1]])])
    unsure = gap_interval(teacher=tiny, student=same, transferred=better)  # a third of the resamples: no gap
    assert unsure.value == pytest.approx(20)
    assert math.isnan(unsure.low)


def test_a_draw_that_is_no_number_leaves_the_ends_open():
    got = interval(0.5, np.array([0.4, math.inf, 0.6]), [np.array([0.5])])
    assert got.value == 0.5
    assert math.isnan(got.low)
    assert math.isnan(got.high)


def test_seeds_of_the_gap_agree_with_the_closed_form():
    rng = np.random.default_rng(9)
    sure = {"teacher": resample([right([[1.0] * 400])]), "student": resample([right([[0.0] * 400])])}
    runs = rng.random((5, 400)) < 0.5
    got = gap_interval(**sure, transferred=resample([right(runs)]))
    closed = over_seeds([mean(run.astype(float).tolist()) for run in runs])
    assert got.value == pytest.approx(closed.value)
    assert (got.high - got.low) / 2 <= 2.78 * closed.stderr
