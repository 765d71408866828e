"""Standard errors of an accuracy, a ratio, a mean over tasks, a share of a gap, and a mean over seeds.

    samples -> Estimate (value, standard error) -> mean over tasks, share of the gap closed, mean over seeds

All are closed forms, so that equal samples give bitwise equal errors; the tests compare them with a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAN = float("nan")
FEWEST = 6  # rows: of fewer, no exact sign test reaches 5 % (2 * 0.5^5 = 0.0625)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its standard error."""

    value: float
    stderr: float


UNKNOWN = Estimate(value=NAN, stderr=NAN)


def total(terms: Iterable[float]) -> float:
    """Return the exact sum, rounded once; NaN or infinite where a term is, or where it is too large for a float."""
    terms = list(terms)
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):  # too large in between, or infinities of both signs
        return sum(terms)


def _square(value: float) -> float:
    try:
        return value**2
    except OverflowError:
        return math.inf


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
    centre = total(values) / count
    if count == 1:
        return Estimate(value=centre, stderr=NAN)
    squares = total(_square(value - centre) for value in values)
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
    whole = total(denominators)
    if not whole > 0:
        raise ValueError(f"denominators sum to {whole}; a ratio needs a positive sum")
    count, value = len(numerators), total(numerators) / whole
    if count == 1:
        return Estimate(value=value, stderr=NAN)
    squares = total(_square(a - value * b) for a, b in zip(numerators, denominators, strict=True))
    return Estimate(value=value, stderr=math.sqrt(count / (count - 1) * squares) / whole)


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean over tasks, whose errors are independent: `se = sqrt(sum se_i^2) / k`.

    Args:
        estimates: one per task; those whose value is NaN (no gap to close) are left out.

    Returns:
        NaN with NaN error when nothing is left.
    """
    known = [estimate for estimate in estimates if not math.isnan(estimate.value)]
    if not known:
        return UNKNOWN
    value = total(estimate.value for estimate in known) / len(known)
    stderr = math.sqrt(total(_square(estimate.stderr) for estimate in known)) / len(known)
    return Estimate(value=value, stderr=stderr)


def mean_of_all(estimates: Sequence[Estimate]) -> Estimate:
    """Return `mean_estimate`, or NaN where one of the values is no number: without it the mean is of something else."""
    if any(math.isnan(estimate.value) for estimate in estimates):
        return UNKNOWN
    return mean_estimate(estimates)


def gap_closed(*, teacher: Estimate, student: Estimate, transferred: Estimate) -> Estimate:
    """Return `g = (transferred - student) / (teacher - student)`, 1 when the student has caught up.

    Delta method over three independent errors, with gap `d = teacher - student`:
    `se^2 = (se_x^2 + (1 - g)^2 se_s^2 + g^2 se_t^2) / d^2`.

    Limitations: the models answer the same rows, so their errors are positively correlated and this error is an
    upper bound in practice. Works for metrics that fall (bits per byte) as for those that rise; so it does not notice
    a teacher that is worse than the student, on whose way down there is nothing to close (`reporting.gaps` does).

    Returns:
        NaN with NaN error where there is no gap: teacher and student are within two standard errors of each other,
        where the ratio has heavy tails and its error says little.
    """
    gap = teacher.value - student.value
    if not (math.isfinite(gap) and abs(gap) > 2 * math.hypot(teacher.stderr, student.stderr)):
        return UNKNOWN
    share = (transferred.value - student.value) / gap
    variance = (
        _square(transferred.stderr) + _square((1 - share) * student.stderr) + _square(share * teacher.stderr)
    ) / _square(gap)
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
    rows = total(_square(run.stderr) for run in runs) / len(runs)
    seeds = 0.0 if len(runs) == 1 else _square(spread.stderr)
    return Estimate(value=spread.value, stderr=math.sqrt(seeds + rows))
