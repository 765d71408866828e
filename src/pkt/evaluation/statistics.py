"""Standard errors of an accuracy, a ratio, a mean over tasks, a share of a gap, and a mean over seeds.

    samples -> Estimate (value, standard error) -> mean over tasks, share of the gap closed, mean over seeds

All are closed forms, so that equal samples give bitwise equal errors; the tests compare them with a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its standard error."""

    value: float
    stderr: float


def mean(values: Sequence[float]) -> Estimate:
    """Return the sample mean and its standard error.

    `se = sqrt(sum (x - mean)^2 / (n - 1) / n)`; for right/wrong answers that is `sqrt(p (1 - p) / (n - 1))`,
    which lm-eval reports too. The error of a single value is unknown: NaN.

    Args:
        values: one number per test row.

    Raises:
        ValueError: no values.
    """
    count = len(values)
    if not count:
        raise ValueError("no values: a mean needs at least one")
    centre = math.fsum(values) / count
    if count == 1:
        return Estimate(value=centre, stderr=NAN)
    squares = math.fsum((value - centre) ** 2 for value in values)
    return Estimate(value=centre, stderr=math.sqrt(squares / (count - 1) / count))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Return `R = sum a / sum b` over rows (bits per byte, right tokens per token) and its standard error.

    Linearised (Cochran, Sampling Techniques, 6.4): `se = sqrt(n / (n - 1) sum (a - R b)^2) / sum b`.

    Args:
        numerators: `a`, one per test row.
        denominators: `b`, one per test row, none negative.

    Raises:
        ValueError: lengths differ, or the denominators sum to zero.
    """
    if len(numerators) != len(denominators):
        raise ValueError(
            f"{len(numerators)} numerators and {len(denominators)} denominators; give one per row"
        )
    total = math.fsum(denominators)
    if not total > 0:
        raise ValueError(f"denominators sum to {total}; a ratio needs a positive sum")
    count, value = len(numerators), math.fsum(numerators) / total
    if count == 1:
        return Estimate(value=value, stderr=NAN)
    squares = math.fsum((a - value * b) ** 2 for a, b in zip(numerators, denominators, strict=True))
    return Estimate(value=value, stderr=math.sqrt(count / (count - 1) * squares) / total)


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean over tasks, whose errors are independent: `se = sqrt(sum se_i^2) / k`.

    Args:
        estimates: one per task; those whose value is NaN (no gap to close) are left out.

    Returns:
        NaN with NaN error when nothing is left.
    """
    known = [estimate for estimate in estimates if not math.isnan(estimate.value)]
    if not known:
        return Estimate(value=NAN, stderr=NAN)
    value = math.fsum(estimate.value for estimate in known) / len(known)
    stderr = math.sqrt(math.fsum(estimate.stderr**2 for estimate in known)) / len(known)
    return Estimate(value=value, stderr=stderr)


def gap_closed(*, teacher: Estimate, student: Estimate, transferred: Estimate) -> Estimate:
    """Return `g = (transferred - student) / (teacher - student)`, 1 when the student has caught up.

    Delta method over three independent errors, with gap `d = teacher - student`:
    `se^2 = (se_x^2 + (1 - g)^2 se_s^2 + g^2 se_t^2) / d^2`.

    Limitations: the models answer the same rows, so their errors are positively correlated and this error is an
    upper bound in practice. Works for metrics that fall (bits per byte) as for those that rise.

    Returns:
        NaN with NaN error where there is no gap: teacher and student are within two standard errors of each other,
        where the ratio has heavy tails and its error says little.
    """
    gap = teacher.value - student.value
    if not abs(gap) > 2 * math.hypot(teacher.stderr, student.stderr):
        return Estimate(value=NAN, stderr=NAN)
    share = (transferred.value - student.value) / gap
    variance = (
        transferred.stderr**2 + ((1 - share) * student.stderr) ** 2 + (share * teacher.stderr) ** 2
    ) / gap**2
    return Estimate(value=share, stderr=math.sqrt(variance))


def over_seeds(runs: Sequence[Estimate]) -> Estimate:
    """Return the mean over seeds, with an error that covers both the draw of seeds and that of test rows.

    The same test rows score every seed, so averaging over seeds shrinks the seeds' spread but not the rows' error:
    `se^2 = s^2 / k + mean(se_i^2)`, with `s` the standard deviation over the k seeds. Conservative: `s` already holds
    the part of the rows' error that differs between seeds. One seed: its test error alone.

    Args:
        runs: one estimate per seed.

    Raises:
        ValueError: no runs.
    """
    spread = mean([run.value for run in runs])
    rows = math.fsum(run.stderr**2 for run in runs) / len(runs)
    seeds = 0.0 if len(runs) == 1 else spread.stderr**2
    return Estimate(value=spread.value, stderr=math.sqrt(seeds + rows))
