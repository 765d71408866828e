"""From lm-eval's samples to graded records and scores, one grader per kind of task.

    choice      most likely option is the labelled one                               acc
    exact       generated text equals the answer, white space at the ends aside       exact_match
    program     prompt + generated text + test runs to its end in the sandbox         pass@1
    likelihood  -log2 P(answer | prompt) over the answer's UTF-8 bytes, and the       bits_per_byte,
                share of the answer's tokens that were the model's first choice       token_accuracy

The end-of-text token is not part of a likelihood. Both ratios are sums over rows, not means of rows' ratios. A row
that is answered n times counts as the share of right answers (pass@1), and has pass@10 and pass@100 as far as n goes;
standard errors are over rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pkt.evaluation.code_eval import pass_at
from pkt.evaluation.results import TaskScore
from pkt.evaluation.sandbox import Outcome, run_programs
from pkt.evaluation.statistics import Estimate, mean, ratio

Record = dict[str, Any]
Sample = Mapping[str, Any]
AT = (10, 100)  # k of pass@k, beside 1
KINDS = {
    "nano_knowledge": "choice",
    "nano_math": "exact",
    "nano_code": "program",
    "nano_program": "program",
    "pystdlib": "likelihood",
    "custom_generate": "exact",
    "custom_likelihood": "likelihood",
}


def grade(name: str, samples: Sequence[Sample], hits: Mapping[Any, Any], timeout: float) -> list[Record]:
    """Return a record per row of one of pkt's own lm-eval tasks.

    Args:
        name: the lm-eval task.
        samples: what lm-eval logged, one per document; those of a row are joined.
        hits: (context, continuation) -> `pkt.evaluation.scorer.Hits`.
        timeout: seconds per generated program.
    """
    kind = KINDS[name]
    if kind == "program":
        return joined(_programs(samples, timeout))
    if kind == "likelihood":
        return [_likelihood(sample, hits) for sample in samples]
    one: Callable[[Sample], Record] = _choice if kind == "choice" else _exact
    return joined([one(sample) for sample in samples])


def joined(records: Sequence[Record]) -> list[Record]:
    """Join the records of rows that were answered several times.

    Args:
        records: one per answer; those of a row have its id.

    Returns:
        One per row. A row with several answers keeps them in ``samples``; its flags become shares of them, and the
        row of a program gets ``pass@10`` and ``pass@100`` where it has as many.
    """
    rows: dict[str, list[Record]] = {}
    for record in records:
        rows.setdefault(record["id"], []).append(record)
    return [answers[0] if len(answers) == 1 else _joined(answers) for answers in rows.values()]


def _joined(answers: list[Record]) -> Record:
    kept = ("id", "prompt", "target")
    row = {key: answers[0][key] for key in (*kept, "output")}
    for flag in ("correct", "strict"):
        if flag in answers[0]:
            row[flag] = math.fsum(answer[flag] for answer in answers) / len(answers)
    if "outcome" in answers[0]:
        right = sum(answer["correct"] for answer in answers)
        row |= {f"pass@{k}": pass_at(k, len(answers), right) for k in AT if k <= len(answers)}
    return row | {"samples": [{k: v for k, v in answer.items() if k not in kept} for answer in answers]}


def scores(task: str, name: str, records: Sequence[Record]) -> list[TaskScore]:
    """Return the scores of one of pkt's own tasks.

    Args:
        task: the name to report.
        name: the lm-eval task.
        records: what `grade` returned.
    """
    kind = KINDS[name]
    if kind == "likelihood":
        bits, length, right, tokens = (
            [r[key] for r in records] for key in ("bits", "bytes", "right", "tokens")
        )
        return [
            _score(task, "bits_per_byte", ratio(bits, length), len(records), higher=False),
            _score(task, "token_accuracy", ratio(right, tokens), len(records)),
        ]
    metric = {"choice": "acc", "exact": "exact_match", "program": "pass@1"}[kind]
    return rated(task, metric, records)


def rated(task: str, metric: str, records: Sequence[Record]) -> list[TaskScore]:
    """Return the mean over rows of whether they are right, and of pass@k where the records have it."""
    fields = {metric: "correct"} | {key: key for k in AT if (key := f"pass@{k}") in records[0]}
    return [
        _score(task, name, mean([float(record[field]) for record in records]), len(records))
        for name, field in fields.items()
    ]


def stock_scores(
    task: str, logged: Sequence[Sample], higher: Mapping[str, Any], results: Mapping[str, Any]
) -> list[TaskScore]:
    """Return the mean of each per-row metric of a task of lm-eval's; metrics that are no mean are left out.

    Args:
        task: its name.
        logged: its samples.
        higher: lm-eval's, metric -> whether higher is better.
        results: lm-eval's own scores of the task, which tell whether a metric is the mean of its rows' values.
    """
    found = []
    for (metric, kind), values in _stock_values(logged, results).items():
        estimate = mean(list(values.values()))
        name = stock_metric(metric, kind)
        found.append(_score(task, name, estimate, len(values), higher=bool(higher.get(metric, True))))
    return found


def stock_records(logged: Sequence[Sample], results: Mapping[str, Any]) -> list[Record]:
    """Return a record per row of a task of lm-eval's, with the row's value of each metric that is a mean over rows.

    lm-eval logs a row once per filter; the record has the first one's output, and all their metrics, named as in
    the scores (``exact_match``, ``exact_match,strict-match``). A row is ``correct`` where the first metric is 1, if it
    is 0 or 1 in every row.
    """
    values = _stock_values(logged, results)
    rows: dict[str, Record] = {}
    for sample in logged:
        row = {
            "id": str(sample["doc_id"]),
            "prompt": str(sample["arguments"][0][0]),
            "output": str(sample["filtered_resps"][0]),
            "target": str(sample["target"]),
            "correct": None,
            "filter": sample["filter"],
            "metrics": {},
        }
        rows.setdefault(row["id"], row)
    for (metric, kind), of in values.items():
        for row_id, value in of.items():
            rows[row_id]["metrics"][stock_metric(metric, kind)] = value
    first = next(iter(values.values()), {})
    if first and set(first.values()) <= {0.0, 1.0}:
        for row_id, value in first.items():
            rows[row_id]["correct"] = bool(value)
    return list(rows.values())


def stock_metric(metric: str, kind: str) -> str:
    """Return the name of a metric under one of lm-eval's filters."""
    return metric if kind == "none" else f"{metric},{kind}"


def _stock_values(
    logged: Sequence[Sample], results: Mapping[str, Any]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return (metric, filter) -> row -> value, for the metrics whose mean over rows is lm-eval's score."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for sample in logged:
        for metric in sample["metrics"]:
            if isinstance(sample[metric], int | float):  # others are worked out over all rows together
                rows = found.setdefault((metric, str(sample["filter"])), {})
                rows[str(sample["doc_id"])] = float(sample[metric])
    return {kind: rows for kind, rows in found.items() if _is_mean(rows, results.get(",".join(kind)))}


def _is_mean(rows: Mapping[str, float], score: object) -> bool:
    own = math.fsum(rows.values()) / len(rows)
    return isinstance(score, int | float) and math.isclose(own, score, rel_tol=1e-6, abs_tol=1e-9)


def _score(task: str, metric: str, estimate: Estimate, n: int, *, higher: bool = True) -> TaskScore:
    return TaskScore(
        task=task, metric=metric, value=estimate.value, stderr=estimate.stderr, n=n, higher_is_better=higher
    )


def _record(sample: Sample, output: str, correct: bool) -> Record:
    doc = sample["doc"]
    return {
        "id": doc["id"],
        "prompt": sample["arguments"][0][0],
        "output": output,
        "target": doc["answer"],
        "correct": correct,
    }


def _choice(sample: Sample) -> Record:
    """Pick the option with the highest summed log-likelihood; the first of equals."""
    values = [float(value) for value, _ in sample["filtered_resps"]]
    best = values.index(max(values))
    record = _record(sample, sample["arguments"][best][1], best == sample["doc"]["label"])
    return record | {"loglikelihoods": [round(value, 4) for value in values]}


def _exact(sample: Sample) -> Record:
    output = sample["filtered_resps"][0]
    return _record(sample, output, output.strip() == sample["doc"]["answer"].strip())


def _programs(samples: Sequence[Sample], timeout: float) -> list[Record]:
    """Run prompt, output and test as one program each; the prompt is the row's own, not the chat template's."""
    outputs = [sample["filtered_resps"][0] for sample in samples]
    docs = [sample["doc"] for sample in samples]
    sources = [f"{doc['prompt']}{output}\n{doc['test']}" for doc, output in zip(docs, outputs, strict=True)]
    outcomes = run_programs(sources, timeout=timeout)
    return [
        _record(sample, output, outcome is Outcome.PASS) | {"outcome": outcome.value}
        for sample, output, outcome in zip(samples, outputs, outcomes, strict=True)
    ]


def _likelihood(sample: Sample, hits: Mapping[Any, Any]) -> Record:
    found = hits[tuple(sample["arguments"][0])]
    answer = sample["doc"]["answer"]
    return _record(sample, "", found.right == found.tokens) | {
        "bits": -found.loglikelihood / math.log(2),
        "bytes": len(answer.encode("utf-8")),
        "tokens": found.tokens,
        "right": found.right,
    }
