"""What the papers report, and our scores beside it: claims of others, never values to tune towards.

Source: Gu et al., "Beyond Neural Incompatibility" (arXiv 2510.24208, v1), Tables 1 and 2. Teacher Llama-2-13B-Chat or a
fine-tuned 13B model, student Llama-2-7B-Chat; zero-shot accuracy or pass@1, in per cent. The paper gives no errors: the
ones here are the sampling error of one run, sqrt(p (1 - p) / n).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pkt.reporting.cells import score_cell
from pkt.reporting.study import Study
from pkt.table import Table

ROWS = {"mmlu": 14042, "gsm8k": 1319, "humaneval": 164, "mbpp": 500}  # test rows of each benchmark

TABLE1: Mapping[str, Mapping[str, float]] = {
    "student": {"mmlu": 44.20, "gsm8k": 16.07, "humaneval": 14.05, "mbpp": 17.80},
    "teacher": {"mmlu": 52.90, "gsm8k": 20.55, "humaneval": 18.75, "mbpp": 19.20},
    "seeking": {"mmlu": 49.60, "gsm8k": 28.23, "humaneval": 15.44, "mbpp": 20.60},
    "laten": {"mmlu": 44.40, "gsm8k": 20.47, "humaneval": 14.63, "mbpp": 18.20},
    "semalign": {"mmlu": 50.30, "gsm8k": 19.21, "humaneval": 17.34, "mbpp": 18.78},
}
TABLE2: Mapping[str, Mapping[str, float]] = {
    "codellama-13b: teacher": {"humaneval": 47.56, "mbpp": 37.80},
    "codellama-13b: seeking": {"humaneval": 16.05, "mbpp": 21.40},
    "codellama-13b: laten": {"humaneval": 14.02, "mbpp": 17.80},
    "codellama-13b: semalign": {"humaneval": 20.12, "mbpp": 22.35},
    "wizardcoder-13b: teacher": {"humaneval": 56.71, "mbpp": 41.60},
    "wizardcoder-13b: seeking": {"humaneval": 15.04, "mbpp": 19.80},
    "wizardcoder-13b: laten": {"humaneval": 14.02, "mbpp": 18.60},
    "wizardcoder-13b: semalign": {"humaneval": 19.46, "mbpp": 21.18},
}
PUBLISHED = {"table1": TABLE1, "table2": TABLE2}


def published_table(target: str) -> Table | None:
    """Return what was published for a target, with the sampling error of one run; None where nothing was.

    Args:
        target: `table1` or `table2`; any other has no published numbers.
    """
    scores = PUBLISHED.get(target)
    if scores is None:
        return None
    benches = tuple(next(iter(scores.values())))
    rows = tuple((name, *(_cell(of[bench], ROWS[bench]) for bench in benches)) for name, of in scores.items())
    title = "published (arXiv 2510.24208v1): 13B teachers, student Llama-2-7B-Chat; ± is ours: one run's sampling error"
    return Table(title=title, columns=("", *benches), rows=rows)


def _cell(per_cent: float, n: int) -> str:
    share = per_cent / 100
    return f"{per_cent:.2f} ± {100 * math.sqrt(share * (1 - share) / n):.1f}"


def beside_table(studies: Sequence[Study], target: str) -> Table | None:
    """Return one row per pair and method with, for each benchmark, our score and the published one.

    Args:
        studies: of any pairs and benchmarks.
        target: `table1` or `table2`.

    Returns:
        None where no task is a benchmark of the paper, or the target has no published numbers.
    """
    claims = PUBLISHED.get(target, {})
    ours: dict[tuple[str, str, str], dict[str, str]] = {}  # (row, pair, method) -> benchmark -> cell
    for study in studies:
        for arm in (*reversed(study.fixed), *study.as_read):
            for task in study.tasks:
                if (bench := task.removesuffix("_instruct")) in ROWS:
                    row = study.pair
                    if bench in ours.get(
                        (row, study.pair, arm.label), {}
                    ):  # of another student, or on other rows
                        row = study.title
                    cell = score_cell(study.score(arm, [task]), study.metric(task))
                    ours.setdefault((row, study.pair, arm.label), {})[bench] = cell
    benches = [bench for bench in ROWS if any(bench in cells for cells in ours.values())]
    if not claims or not benches:
        return None
    rows = []
    for (row, pair, method), cells in ours.items():
        own = [(cells.get(bench, "–"), _claim(claims, pair, method, bench)) for bench in benches]
        rows.append((f"{row}: {method}", *(cell for both in own for cell in both)))
    title = "ours (mean ± standard error over seeds and test rows) beside the published number, in per cent"
    columns = [column for bench in benches for column in (bench, f"{bench}, published")]
    return Table(title=title, columns=("", *columns), rows=tuple(rows))


def _claim(claims: Mapping[str, Mapping[str, float]], pair: str, method: str, bench: str) -> str:
    """Return what the paper reports of a method, with this teacher where it names teachers."""
    teacher = pair.split("-13b-")[0]  # codellama-13b-to-7b -> codellama
    for name in (method, f"{teacher}-13b: {method}"):
        if bench in claims.get(name, {}):
            return f"{claims[name][bench]:.2f}"
    return "–"
