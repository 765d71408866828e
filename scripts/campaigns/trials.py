"""What a campaign is made of: trials, each of which ends in one outcome, and their count.

campaign.trials(count, seed) -> Trial(name, attempt) ... -> run -> Outcome per trial -> table, JSON, exit code
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Verdict(StrEnum):
    """How a trial may end; the last three must not occur."""

    WORKS = "works"  # the right result
    REFUSED = "refused"  # one message in words, nothing half-written left behind
    SKIPPED = "skipped"  # cannot be tried on this machine; the detail says why
    LOST = "lost"  # something of the user's, or a finished result, is gone
    WRONG = "wrong"  # another result than the right one, in silence
    TRACEBACK = "traceback"  # an exception that nobody foresaw


BAD = (Verdict.LOST, Verdict.WRONG, Verdict.TRACEBACK)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one trial ended.

    Attributes:
        trial: its name.
        verdict: which kind of end.
        detail: the message, or what was expected and what came.
    """

    trial: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One thing to try.

    Attributes:
        name: says what is tried; unique within its campaign.
        attempt: tries it and returns the verdict with a detail; an exception out of it is a `traceback`.
    """

    name: str
    attempt: Callable[[], tuple[Verdict, str]]

    def run(self) -> Outcome:
        """Try it."""
        try:
            verdict, detail = self.attempt()
        except Exception:
            verdict, detail = Verdict.TRACEBACK, traceback.format_exc()
        return Outcome(trial=self.name, verdict=verdict, detail=detail)


def run(trials: Iterable[Trial], show: Callable[[Outcome], None] = lambda _: None) -> list[Outcome]:
    """Run trials in their order.

    Args:
        trials: of one campaign.
        show: called with each outcome.
    """
    outcomes = []
    for trial in trials:
        outcomes.append(trial.run())
        show(outcomes[-1])
    return outcomes


def bad(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the outcomes that must not occur."""
    return [outcome for outcome in outcomes if outcome.verdict in BAD]


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how many trials ended in each verdict, every verdict named."""
    found = Counter(outcome.verdict for outcome in outcomes)
    return {str(verdict): found[verdict] for verdict in Verdict}


def write(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write the outcomes as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n", encoding="utf-8")
