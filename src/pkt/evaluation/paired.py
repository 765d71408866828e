"""Paired statistics: compare models that answered the same rows, row by row.

    Answers (one task, k runs, n rows) ──resample──> Sampled (scores, and scores of resampled rows)
    Sampled of two arms ──difference──> Interval        of teacher, student, transferred ──gap_interval──> Interval

Equal seeds draw equal rows for every arm (common random numbers). So each arm is resampled once, two arms are paired by
subtracting their resamples, and the difficulty of a row cancels. Pairing needs the same rows in the same order.

Shape suffixes: B resamples, K runs (seeds) of one arm, N rows of a task, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS = 2000
_LEVEL = 0.95
_CHUNK = 250_000  # counts held at a time: small enough to stay in cache
_ROUNDING = 1e-12  # what a row may seem to add to a difference by rounding alone
_EXACT = 14  # rows of which all signs are tried (2^13 ways); of more the bootstrap can be trusted


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with the ends of its 95 % interval; NaN ends where no interval can be given.

    Attributes:
        value, low, high: of the interval.
        differing: rows on which what is compared differs, where they were counted: its support.
    """

    value: float
    low: float
    high: float
    differing: int | None = None

    @property
    def known(self) -> bool:
        """Whether it has ends."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def holds_zero(self) -> bool:
        """Whether zero is inside, or the interval is not known."""
        return not (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of k runs of one arm to the n rows of one task; a run's score is `sum value / sum weight` over rows.

    Right/wrong answers are values 0 and 1 with weight 1; bits per byte are bits with bytes as weights.

    Attributes:
        value_KN: per run and row.
        weight_KN: per run and row, none negative, of positive sum.
    """

    value_KN: Floats
    weight_KN: Floats

    def __post_init__(self) -> None:
        assert self.value_KN.shape == self.weight_KN.shape
        assert self.value_KN.ndim == 2
        assert self.value_KN.size


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The scores of one arm's runs, and its scores on resampled rows, averaged over runs."""

    scores_KT: Floats
    draws_BT: Floats

    def only(self, tasks: Sequence[int]) -> Sampled:
        """Return the scores of some of the tasks."""
        columns = list(tasks)
        return Sampled(scores_KT=self.scores_KT[:, columns], draws_BT=self.draws_BT[:, columns])


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the p-value of McNemar's exact test for two models on the same rows.

    Null hypothesis: of the rows that only one model gets right, each model gets half.

    Args:
        first: whether each row is right.
        second: the same rows in the same order.

    Raises:
        ValueError: lengths differ.
    """
    from scipy.stats import binomtest  # half a second, which a report without a table of pairs need not wait

    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} answers; pairs need the same rows")
    only_first, only_second = (np.sum(np.greater(*pair)) for pair in ((first, second), (second, first)))
    discordant = int(only_first + only_second)
    return float(binomtest(int(only_first), discordant).pvalue) if discordant else 1.0


def resample(tasks: Sequence[Answers], *, draws: int = DRAWS, seed: int = 0) -> Sampled:
    """Score an arm on its rows and on rows drawn with replacement, task by task.

    All runs of an arm see the same draw, and so do all arms with equal `draws` and `seed` whose tasks have as many
    rows. Deviations are widened by `sqrt(n / (n - 1))`, without which the draws' variance is too small (Rao and Wu
    1988, Resampling inference with complex survey data). One row has no spread to show.

    Args:
        tasks: the arm's answers, one entry per task, each of K runs.
        draws: B.
        seed: of the resampled rows.
    """
    scores_KT = np.stack([task.value_KN.sum(1) / task.weight_KN.sum(1) for task in tasks], axis=1)
    draws_BT = np.empty((draws, len(tasks)))
    for index, task in enumerate(tasks):
        rows = task.value_KN.shape[1]
        start = 0
        for counts_bN in _counts(rows, draws, np.random.default_rng([seed, index])):
            scores_bK = (counts_bN @ task.value_KN.T) / (counts_bN @ task.weight_KN.T)
            draws_BT[start : start + len(counts_bN), index] = scores_bK.mean(1)
            start += len(counts_bN)
        centre = scores_KT[:, index].mean()
        draws_BT[:, index] = centre + (draws_BT[:, index] - centre) * math.sqrt(rows / max(rows - 1, 1))
    return Sampled(scores_KT=scores_KT, draws_BT=draws_BT)


def _counts(rows: int, draws: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each row is drawn (b, N), b resamples at a time: multinomial counts, by counting draws."""
    size = max(1, _CHUNK // rows)
    for start in range(0, draws, size):
        many = min(size, draws - start)
        drawn = (
            generator.integers(0, rows, size=(many, rows), dtype=np.int32) + rows * np.arange(many)[:, None]
        )
        yield np.bincount(drawn.ravel(), minlength=many * rows).reshape(many, rows).astype(np.float64)


def difference(first: Sampled, second: Sampled, *, seed: int = 0) -> Interval:
    """Return the difference `first - second` of the means over tasks, with its 95 % interval.

    Args:
        first: an arm, resampled.
        second: another arm on the same rows, resampled with the same seed and number of draws.
        seed: of the draws for the runs' spread.
    """
    assert first.draws_BT.shape == second.draws_BT.shape
    value = float(first.scores_KT.mean() - second.scores_KT.mean())
    draws_B = first.draws_BT.mean(1) - second.draws_BT.mean(1)
    return interval(value, draws_B, [first.scores_KT.mean(1), second.scores_KT.mean(1)], seed=seed)


def gap_interval(*, teacher: Sampled, student: Sampled, transferred: Sampled, seed: int = 0) -> Interval:
    """Return `(transferred - student) / (teacher - student)`, averaged over tasks, with its 95 % interval.

    All three are scored on the same resampled rows, so their correlation counts: the interval is narrower than that of
    independent errors (`statistics.gap_closed`), and it is skewed where the gap is small.

    Returns:
        NaN ends where a task's gap changes its sign in more than 2.5 % of the resamples (Fieller's interval of such
        a ratio has no ends either); NaN throughout where there is no gap, or no task.
    """
    if not transferred.scores_KT.shape[1]:
        return Interval(value=math.nan, low=math.nan, high=math.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares_KT = _share(teacher.scores_KT.mean(0), student.scores_KT.mean(0), transferred.scores_KT)
        draws_BT = _share(teacher.draws_BT, student.draws_BT, transferred.draws_BT)
    value = float(shares_KT.mean())
    if not math.isfinite(value):
        return Interval(value=math.nan, low=math.nan, high=math.nan)
    gap_T = teacher.scores_KT.mean(0) - student.scores_KT.mean(0)
    lost_T = (np.sign(gap_T) * (teacher.draws_BT - student.draws_BT) <= 0).mean(0)
    if (lost_T > (1 - _LEVEL) / 2).any():
        return Interval(value=value, low=math.nan, high=math.nan)
    return interval(value, draws_BT.mean(1), [shares_KT.mean(1)], seed=seed)


def differing(first: Sequence[Answers], second: Sequence[Answers]) -> Floats:
    """Return what each row adds to the difference of the means over tasks, of the rows that add anything.

    Args:
        first: an arm's answers, one entry per task.
        second: another arm's to the same rows.
    """
    parts = [_per_row(own) - _per_row(other) for own, other in zip(first, second, strict=True)]
    return np.concatenate([own_N[np.abs(own_N) > _ROUNDING] for own_N in parts])


def _per_row(task: Answers) -> Floats:
    """Return what each row adds to an arm's score, averaged over its runs; (N)."""
    added_N: Floats = (task.value_KN / task.weight_KN.sum(1, keepdims=True)).mean(0)
    return added_N


def sign_flip(parts_M: Floats) -> float:
    """Return the two-sided p-value of the exact sign-flip test: how often chance makes a sum as far from 0.

    Null hypothesis: each row's part is as likely to have the other sign. For right/wrong answers of one run each this
    is McNemar's exact test. All `2^M` ways are tried, so M is small.
    """
    sums = np.zeros(1)
    for part in np.abs(parts_M[1:]):  # the first row's sign is the other half of the ways, mirrored
        sums = np.concatenate([sums + part, sums - part])
    first, observed = abs(float(parts_M[0])), abs(float(parts_M.sum()))
    return float((np.abs(sums + first) >= observed * (1 - 1e-9)).mean())


def supported(found: Interval, parts_M: Floats) -> Interval:
    """Return an interval with its support; its ends are NaN where so few rows cannot keep it away from 0.

    A bootstrap of a few rows knows nothing but these few rows: of two rows that both changed it says that all rows do.
    So where 0 is outside and few rows differ, the exact test has to agree (of fewer than 6 rows it never does).

    Args:
        found: of a difference or a share.
        parts_M: what the rows add to it, of those that add anything (`differing`).
    """
    found = replace(found, differing=len(parts_M))
    if found.holds_zero or len(parts_M) > _EXACT or (len(parts_M) and sign_flip(parts_M) <= 1 - _LEVEL):
        return found
    return replace(found, low=math.nan, high=math.nan)


def _share(teacher: Floats, student: Floats, transferred: Floats) -> Floats:
    return (transferred - student) / (teacher - student)


def interval(value: float, draws_B: Floats, arms: Sequence[Floats], *, seed: int = 0) -> Interval:
    """Return the 95 % percentile interval over rows and over runs (hierarchical bootstrap).

    Rows are resampled. Runs are drawn from a normal distribution with their unbiased variance `s^2 / k`, because two or
    three seeds have too few resamples, whose variance is too small. The quantiles' distance from the value is then
    stretched by `t_df / z` (the expanded percentile interval of Hesterberg 2015, What teachers should know about the
    bootstrap), with `df` by Welch and Satterthwaite, where the variance over rows has infinitely many.

    Conservative: the spread of runs includes the part of the rows' error that differs between runs. An arm of one run
    is given the largest spread of the other arms; if every arm has one run, the interval covers rows alone.

    Args:
        value: the estimate.
        draws_B: the estimate on resampled rows, averaged over runs.
        arms: for each arm, the estimate from each of its runs (K).
        seed: of the draws for the runs' spread.

    Returns:
        NaN ends where a draw is not finite.
    """
    if not np.isfinite(draws_B).all():
        return Interval(value=value, low=math.nan, high=math.nan)
    spread, unsure = _spread(arms)
    total = spread + float(draws_B.var(ddof=1))
    freedom = total**2 / unsure if unsure > 0 else math.inf
    noise_B = np.random.default_rng(seed).normal(0.0, math.sqrt(spread), size=len(draws_B))
    both = np.concatenate([draws_B + noise_B, draws_B - noise_B])  # `a - b` then mirrors `b - a`
    top = (1 + _LEVEL) / 2
    ends = np.quantile(both, [1 - top, top])
    stretch = _stretch(freedom, top)
    low, high = (value + stretch * (float(end) - value) for end in ends)
    return Interval(value=value, low=low, high=high)


def _stretch(freedom: float, top: float) -> float:
    """Return by how much a quantile of Student's t is farther out than that of the normal distribution."""
    if math.isinf(freedom):
        return 1.0
    from scipy.special import stdtrit

    return float(stdtrit(freedom, top) / stdtrit(math.inf, top))


def _spread(arms: Sequence[Floats]) -> tuple[float, float]:
    """Return the variance `v = sum s_i^2 / k_i` from the draw of runs, and `sum v_i^2 / (k_i - 1)` for its `df`."""
    known = sorted(
        ((float(runs.var(ddof=1)), len(runs)) for runs in arms if len(runs) > 1), key=lambda arm: -arm[0]
    )
    if not known:
        return 0.0, 0.0
    parts = [variance / runs for variance, runs in known]
    # arms of one run are given the largest variance, which adds no degrees of freedom
    parts[0] += known[0][0] * sum(len(runs) == 1 for runs in arms)
    unsure = sum(part**2 / (runs - 1) for part, (_, runs) in zip(parts, known, strict=True))
    return sum(parts), unsure
