"""Stand in for the metric of lm-eval's code tasks: pass@k of programs that run in pkt's sandbox.

Their task files call ``evaluate.load("code_eval")`` when they are read, which asks the hub for a script that runs
generated code unconfined. While such a file is read, that one call gives `CodeEval` instead.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from pkt.sandbox import Outcome, run_programs


@contextlib.contextmanager
def sandboxed_code_eval() -> Iterator[None]:
    """Let ``evaluate.load("code_eval")`` give `CodeEval`: the task files load it, from the hub, when they are read."""
    import evaluate

    load = evaluate.load

    def stand_in(path: str, *args: Any, **kwargs: Any) -> Any:
        return CodeEval() if path == "code_eval" else load(path, *args, **kwargs)

    with mock.patch.object(evaluate, "load", stand_in):
        yield


class CodeEval:
    """The metric that lm-eval's code tasks ask for: pass@k of programs that run in pkt's sandbox."""

    def __init__(self, timeout: float = 5.0) -> None:
        self.timeout = timeout

    def compute(
        self, *, references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] = (1,)
    ) -> tuple[dict[str, float], dict[int, list[str]]]:
        """Return pass@k, averaged over problems, and how each problem's candidates ended.

        Args:
            references: test code of each problem.
            predictions: candidates of each problem.
            k: pass@k is left out for a k that some problem has fewer candidates than.
        """
        sources = [
            program(candidate, test)
            for candidates, test in zip(predictions, references, strict=True)
            for candidate in candidates
        ]
        outcomes = iter(run_programs(sources, timeout=self.timeout))
        ended = {
            number: [next(outcomes).value for _ in candidates]
            for number, candidates in enumerate(predictions)
        }
        passed = [(len(found), found.count(Outcome.PASS.value)) for found in ended.values()]
        most = min(len(found) for found in ended.values())
        scores = {
            f"pass@{at}": math.fsum(pass_at(at, n, right) for n, right in passed) / len(passed)
            for at in k
            if at <= most
        }
        return scores, ended


def program(candidate: str, test: str) -> str:
    """Return what runs: the candidate, then the test."""
    return f"{candidate}\n{test}"


def pass_at(k: int, n: int, right: int) -> float:
    """Return the chance that k of n candidates hold a right one: ``1 - C(n - right, k) / C(n, k)``."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)
