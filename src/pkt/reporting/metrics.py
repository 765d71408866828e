"""What is known of the metrics that scores have: where a record holds them, and which are shares of right answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What stands behind one metric.

    Attributes:
        value: of a record, what a row adds to the numerator.
        weight: of a record, what it adds to the denominator; None where rows weigh alike.
        share: it is a share of right answers, shown in per cent.
    """

    value: str
    weight: str | None = None
    share: bool = True


METRICS: Mapping[str, Metric] = {
    "acc": Metric(value="correct"),
    "exact_match": Metric(value="correct"),
    "exact_match,strict-match": Metric(value="strict"),
    "pass@1": Metric(value="correct"),
    "pass@10": Metric(value="pass@10"),
    "pass@100": Metric(value="pass@100"),
    "bits_per_byte": Metric(value="bits", weight="bytes", share=False),
    "token_accuracy": Metric(value="right", weight="tokens"),
}


def is_share(metric: str) -> bool:
    """Return whether a metric is a share of right answers; one that is not known is taken for a plain number."""
    return metric in METRICS and METRICS[metric].share


def headlines(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of scores that are the first of their task: others (pass@10) are of the same rows."""
    first: dict[str, str] = {}
    for name, score in scores.items():
        first.setdefault(str(score["task"]), name)
    return tuple(first.values())


def averaged(scores: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a mean of scores makes sense: all are shares of right answers."""
    return all(is_share(score["metric"]) for score in scores)
