"""From lm-eval's samples to graded records and scores, one grader per kind of task.

    choice      most likely option is the labelled one                               acc
    exact       generated text equals the answer, white space at the ends aside       exact_match
    program     prompt + generated text + test runs to its end in the sandbox         pass@1
    likelihood  -log2 P(answer | prompt) over the answer's UTF-8 bytes, and the       bits_per_byte,
                share of the answer's tokens that were the model's first choice       token_accuracy

The end-of-text token is not part of a likelihood. Both ratios are sums over rows, not means of rows' ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pkt.evaluation.results import TaskScore
from pkt.evaluation.sandbox import Outcome, run_programs
from pkt.evaluation.statistics import Estimate, mean, ratio

Record = dict[str, Any]
Sample = Mapping[str, Any]
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
    """Return a record per sample of one of pkt's own lm-eval tasks.

    Args:
        name: the lm-eval task.
        samples: what lm-eval logged, one per document.
        hits: (context, continuation) -> `pkt.evaluation.scorer.Hits`.
        timeout: seconds per generated program.
    """
    kind = KINDS[name]
    if kind == "program":
        return _programs(samples, timeout)
    if kind == "likelihood":
        return [_likelihood(sample, hits) for sample in samples]
    one: Callable[[Sample], Record] = _choice if kind == "choice" else _exact
    return [one(sample) for sample in samples]


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
    return [_score(task, metric, mean([float(record["correct"]) for record in records]), len(records))]


def stock_scores(task: str, logged: Sequence[Sample], higher: Mapping[str, Any]) -> list[TaskScore]:
    """Return the mean of each per-row metric of a task of lm-eval's; metrics that are no mean are left out."""
    kinds = dict.fromkeys((metric, sample["filter"]) for sample in logged for metric in sample["metrics"])
    found = []
    for metric, kind in kinds:
        values = [sample[metric] for sample in logged if sample["filter"] == kind]
        if all(isinstance(value, int | float) for value in values):
            name = metric if kind == "none" else f"{metric},{kind}"
            estimate = mean([float(value) for value in values])
            found.append(_score(task, name, estimate, len(values), higher=bool(higher.get(metric, True))))
    return found


def stock_record(sample: Sample) -> Record:
    """Return the record of a row of a task of lm-eval's."""
    return {
        "id": str(sample["doc_id"]),
        "prompt": str(sample["arguments"][0][0]),
        "output": str(sample["filtered_resps"][0]),
        "target": str(sample["target"]),
        "correct": None,
        "filter": sample["filter"],
    }


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
