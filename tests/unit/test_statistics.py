import math

import numpy as np
import pytest

from pkt.evaluation.statistics import Estimate, gap_closed, mean, mean_estimate, over_seeds, ratio


def estimate(value, stderr):
    return Estimate(value=value, stderr=stderr)


def test_accuracy_error_is_the_binomial_one():
    answers = [1.0] * 30 + [0.0] * 70
    got = mean(answers)
    assert got.value == pytest.approx(0.3)
    assert got.stderr == pytest.approx(math.sqrt(0.3 * 0.7 / 99))


def test_mean_needs_values_and_one_value_has_no_error():
    with pytest.raises(ValueError, match="no values"):
        mean([])
    assert math.isnan(mean([1.0]).stderr)


def test_ratio_of_constant_denominators_is_the_mean():
    values = [0.2, 1.4, 0.9, 3.0]
    got = ratio([2 * value for value in values], [2.0] * 4)
    assert (got.value, got.stderr) == pytest.approx((mean(values).value, mean(values).stderr))


def test_ratio_error_matches_a_bootstrap():
    rng = np.random.default_rng(0)
    b = rng.integers(20, 400, size=300).astype(float)
    a = b * 1.7 + rng.normal(0, 30, size=300)
    draws = rng.integers(0, 300, size=(4000, 300))
    boot = (a[draws].sum(1) / b[draws].sum(1)).std(ddof=1)
    got = ratio(a.tolist(), b.tolist())
    assert got.value == pytest.approx(a.sum() / b.sum())
    assert got.stderr == pytest.approx(boot, rel=0.05)


def test_ratio_refuses_what_has_no_ratio():
    with pytest.raises(ValueError, match="one per row"):
        ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="positive sum"):
        ratio([1.0], [0.0])
    assert math.isnan(ratio([1.0], [2.0]).stderr)


def test_mean_over_tasks_adds_variances_and_leaves_out_nan():
    got = mean_estimate([estimate(0.4, 0.03), estimate(0.8, 0.04), estimate(math.nan, math.nan)])
    assert (got.value, got.stderr) == pytest.approx((0.6, 0.025))
    assert math.isnan(mean_estimate([estimate(math.nan, math.nan)]).value)


def test_gap_closed_matches_simulation():
    teacher, student, transferred = estimate(0.8, 0.012), estimate(0.4, 0.015), estimate(0.7, 0.013)
    got = gap_closed(teacher=teacher, student=student, transferred=transferred)
    rng = np.random.default_rng(0)
    t, s, x = (rng.normal(e.value, e.stderr, 200_000) for e in (teacher, student, transferred))
    assert got.value == pytest.approx(0.75)
    assert got.stderr == pytest.approx(((x - s) / (t - s)).std(), rel=0.03)


def test_gap_closed_of_a_falling_metric_and_of_no_gap():
    got = gap_closed(teacher=estimate(1.0, 0), student=estimate(2.0, 0), transferred=estimate(1.25, 0))
    assert got == estimate(0.75, 0)
    same = estimate(0.5, 0.1)
    assert math.isnan(gap_closed(teacher=same, student=same, transferred=same).value)


@pytest.mark.parametrize(("noise", "known"), [(0.049, True), (0.051, False)])
def test_a_gap_inside_two_standard_errors_is_none(noise, known):
    side = noise / math.sqrt(2)  # of teacher and student together: `noise`
    for sign in (1, -1):
        teacher, student = estimate(0.5 + sign * 0.1, side), estimate(0.5, side)
        got = gap_closed(teacher=teacher, student=student, transferred=estimate(0.5 + sign * 0.05, 0.01))
        assert math.isnan(got.value) != known
        assert not known or got.value == pytest.approx(0.5)


def test_over_seeds_keeps_the_rows_error():
    got = over_seeds([estimate(0.5, 0.02), estimate(0.6, 0.02), estimate(0.7, 0.02)])
    assert got.value == pytest.approx(0.6)
    assert got.stderr == pytest.approx(math.sqrt(0.1**2 / 3 + 0.02**2))
    assert over_seeds([estimate(0.5, 0.02)]) == estimate(0.5, 0.02)
