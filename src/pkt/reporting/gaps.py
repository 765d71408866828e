"""The share of the gap between student and teacher that a transfer closed.

A share is 0 at the untouched student and 1 at the teacher, whichever of the two is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pkt.evaluation.paired import Interval
from pkt.evaluation.statistics import Estimate

ROLES = ("teacher", "student", "transferred")
MEAN = "mean"
Scores = Mapping[str, Mapping[str, Any]]  # task -> a `TaskScore` as plain data


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of the gap.

    Attributes:
        estimate: with the standard error of three independent scores; NaN where there is no gap above the noise.
        interval: on the same rows; None where the answers are not known.
    """

    estimate: Estimate
    interval: Interval | None = None

    @property
    def known(self) -> bool:
        """Whether there is a gap to close."""
        return not math.isnan(self.estimate.value)

    @property
    def cell(self) -> str:
        """``49 % [47, 52]``, ``49 % ± 3`` where there is no interval, a dash where there is no gap."""
        if self.interval:
            ends = (self.interval.value, self.interval.low, self.interval.high)
            return "{} % [{}, {}]".format(*(round(100 * number) for number in ends))
        value, stderr = 100 * self.estimate.value, 100 * self.estimate.stderr
        return f"{value:.0f} % ± {stderr:.0f}" if self.known else "–"

    def numbers(self) -> dict[str, float]:
        """Return ``value``, ``stderr`` and, of a known interval, ``low`` and ``high``."""
        ends = {"low": self.interval.low, "high": self.interval.high} if self.interval else {}
        return asdict(self.estimate) | ends


def estimate_of(score: Mapping[str, Any]) -> Estimate:
    """Return a score's value and standard error."""
    return Estimate(value=score["value"], stderr=score["stderr"])
