"""Our scores and the published ones in one table, where the benchmarks are the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pkt.evaluation.statistics import Estimate
from pkt.paper.published import PUBLISHED
from pkt.reporting.runs import Arm, Run, arms
from pkt.reporting.study import grouped, score_cell, score_estimate
from pkt.reporting.table import Table

# task of ours -> the paper's benchmark
BENCHES = {
    "mmlu": "mmlu",
    "gsm8k": "gsm8k",
    "humaneval": "humaneval",
    "humaneval_instruct": "humaneval",
    "mbpp": "mbpp",
    "mbpp_instruct": "mbpp",
}


def beside_table(runs: Sequence[Run], target: str) -> Table | None:
    """Return one row per pair and method with, for each benchmark, our score and the published one.

    Args:
        runs: of any pairs and benchmarks.
        target: `table1` or `table2`.

    Returns:
        None where no task is a benchmark of the paper, or the target has no published numbers.
    """
    published = PUBLISHED.get(target, {})
    ours = _ours(runs)
    benches = [
        bench for bench in dict.fromkeys(BENCHES.values()) if any(bench in row for row in ours.values())
    ]
    if not published or not benches:
        return None
    columns = [column for bench in benches for column in (bench, f"{bench}, published")]
    rows = tuple(
        (
            f"{model}: {method}",
            *(
                cell
                for bench in benches
                for cell in (of.get(bench, "–"), _claim(published, model, method, bench))
            ),
        )
        for (model, method), of in ours.items()
    )
    title = "ours (mean ± standard error over seeds and test rows) beside the published number, in per cent"
    return Table(title=title, columns=("", *columns), rows=rows)


def _ours(runs: Sequence[Run]) -> dict[tuple[str, str], dict[str, str]]:
    """Return (pair, method) -> benchmark -> cell."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for group in grouped(runs):
        model, scores = group[0]["model"], group[0]["scores"]
        for task in (task for task in BENCHES if task in scores["transferred"]):
            for role in ("student", "teacher"):
                if role in scores:
                    _put(found, model, role, task, _fixed(scores[role][task]))
            for arm in arms(group):
                _put(found, model, arm.label, task, _score(arm, task))
    return found


def _put(found: dict[tuple[str, str], dict[str, str]], model: str, name: str, task: str, cell: str) -> None:
    found.setdefault((model, name), {})[BENCHES[task]] = cell


def _fixed(score: Mapping[str, Any]) -> str:
    return score_cell(Estimate(value=score["value"], stderr=score["stderr"]), score["metric"])


def _score(arm: Arm, task: str) -> str:
    return score_cell(score_estimate(arm, [task]), arm.runs[0]["scores"]["transferred"][task]["metric"])


def _claim(published: Mapping[str, Mapping[str, float]], model: str, method: str, bench: str) -> str:
    """Return what the paper reports of a method, with this teacher where it names teachers."""
    teacher = model.split("-13b-")[0]  # codellama-13b-to-7b -> codellama
    for name in (method, f"{teacher}-13b: {method}"):
        if name in published and bench in published[name]:
            return f"{published[name][bench]:.2f}"
    return "–"
