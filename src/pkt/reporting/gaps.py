"""The share of the gap between student and teacher that a transfer closed.

A share is 0 at the untouched student and 1 at the teacher. There is one only where the teacher is better than the
student, by more than the noise: on the way down to a worse teacher there is nothing to close.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pkt.evaluation.paired import Interval
from pkt.evaluation.statistics import FEWEST, UNKNOWN, Estimate

ROLES = ("teacher", "student", "transferred")
MEAN = "mean"
Scores = Mapping[str, Mapping[str, Any]]  # task -> a `TaskScore` as plain data


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of the gap.

    Attributes:
        estimate: with the standard error of three independent scores; NaN where there is no gap, or no score.
        interval: on the same rows; None where the answers are not known, or too few to give one.
        why: why it is not known.
    """

    estimate: Estimate
    interval: Interval | None = None
    why: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a gap to close, and a score to do so."""
        return not math.isnan(self.estimate.value)

    @property
    def sign(self) -> int:
        """1 where some of the gap was closed beyond the noise, -1 where the student ended below its start, else 0."""
        value, noise = self.estimate.value, 2 * self.estimate.stderr
        low, high = (
            (self.interval.low, self.interval.high) if self.interval else (value - noise, value + noise)
        )
        return int(low > 0) - int(high < 0)

    @property
    def cell(self) -> str:
        """``49 % [47, 52]``, ``49 % ± 3`` where there is no interval, a dash where it is not known."""
        if self.interval:
            ends = (self.interval.value, self.interval.low, self.interval.high)
            return "{} % [{}, {}]".format(*(round(100 * number) for number in ends))
        if not self.known:
            return "–"
        stderr = 100 * self.estimate.stderr
        return (
            f"{round(100 * self.estimate.value)} % ± {stderr:.0f}"
            if math.isfinite(stderr)
            else (f"{round(100 * self.estimate.value)} %")
        )

    def numbers(self) -> dict[str, float]:
        """Return ``value``, ``stderr`` and, of a known interval, ``low`` and ``high``."""
        ends = {"low": self.interval.low, "high": self.interval.high} if self.interval else {}
        return asdict(self.estimate) | ends


def estimate_of(score: Mapping[str, Any] | None) -> Estimate:
    """Return a score's value and standard error; NaN where there is no score, or it holds none (null)."""
    numbers = ((score or {}).get(name) for name in ("value", "stderr"))
    value, stderr = (math.nan if number is None else float(number) for number in numbers)
    return Estimate(value=value, stderr=stderr) if math.isfinite(value) else UNKNOWN


def no_gap(teacher: Estimate, student: Estimate, *, rises: bool, rows: int | None) -> str | None:
    """Return why there is no gap to close on a task; None where there is one.

    Args:
        teacher: its score.
        student: the untouched student's.
        rises: whether more is better.
        rows: that were scored; None: not known.
    """
    gap = (teacher.value - student.value) * (1 if rises else -1)
    if math.isnan(gap):
        return "a score is no number"
    if rows is not None and rows < FEWEST:
        return f"{rows} row{'' if rows == 1 else 's'}, too few to tell"
    if not abs(gap) > 2 * math.hypot(teacher.stderr, student.stderr):
        return "teacher and student within two standard errors"
    return None if gap > 0 else "the teacher is worse than the student"
