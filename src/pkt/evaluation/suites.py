"""The real benchmarks as lm-eval's own tasks, on rows that pkt has read.

    test rows -> lm-eval's task file + the rows + the papers' protocol -> samples -> one headline score per benchmark

The protocol: zero-shot, greedy unless answers are drawn (sampling.py), at most `NEW_TOKENS` new tokens. Prompts, stop
strings, filters and metrics are lm-eval's. What is ours: MMLU's sentence about the subject stands in the prompt
(lm-eval's text without a chat template; with one it would be a system message), its letters keep their leading space
with a chat template too, as in training, generated programs run in pkt's sandbox, all in one go, and the fence that
begins a reply of mbpp_instruct has no newline after it: lm-eval's filter reads the word behind three backticks as the
name of a language, and would take a ``def`` at the start of a reply for one (templates that trim their messages hide
this).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.data.suites.mmlu import SUBJECTS
from pkt.errors import PktError, nearest
from pkt.evaluation.code_eval import program, sandboxed_code_eval
from pkt.evaluation.docs import ungraded
from pkt.evaluation.grading import Record, Sample, joined, rated
from pkt.evaluation.results import TaskScore
from pkt.evaluation.sandbox import Outcome, run_programs

FILES = {
    "mmlu": "mmlu/default",  # a file per subject
    "gsm8k": "gsm8k/gsm8k.yaml",
    "humaneval": "humaneval/humaneval.yaml",
    "mbpp": "mbpp/mbpp.yaml",
    "humaneval_instruct": "humaneval/humaneval_instruct.yaml",
    "mbpp_instruct": "mbpp/mbpp_instruct.yaml",
}
NEW_TOKENS = 512
PROTOCOL = 2  # part of the scores' key: raise it when a score can change with the rows unchanged
SPLITS = ("training_split", "validation_split", "fewshot_split", "fewshot_config")
SOURCES = ("dataset_path", "dataset_name", "dataset_kwargs")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One lm-eval task of a benchmark (MMLU has one per subject).

    Attributes:
        name: lm-eval's.
        config: its complete configuration, as lm-eval takes it.
        ids: ids of its rows, in order.
    """

    name: str
    config: dict[str, Any]
    ids: tuple[str, ...]


def parts(task: str, rows: Rows, limit: int | None = None, samples: int = 1) -> list[Part]:
    """Return the lm-eval tasks of a benchmark.

    Args:
        task: one of `FILES`.
        rows: its test rows, with ids and upstream rows (``doc``, as JSON).
        limit: rows at most; MMLU's are taken from all subjects in turn.
        samples: how often each row is answered; it stands as often in its part.

    Raises:
        PktError: a row of MMLU whose subject is none of its 57.
    """
    docs = [{**json.loads(row["doc"]), "id": row["id"]} for row in rows]
    if task != "mmlu":
        return [_part(FILES[task], [doc for doc in docs[:limit] for _ in range(samples)])]
    subjects: dict[str, list[dict[str, Any]]] = {}
    turns: list[tuple[int, str, dict[str, Any]]] = []
    for doc in docs:
        subject = str(doc.get("subject"))
        if subject not in SUBJECTS:
            raise PktError(
                f"row {doc['id']} has subject {subject!r}{nearest(subject, SUBJECTS)}; a test row of MMLU names one "
                "of its 57 subjects (abstract_algebra, ...), or lies in a folder of that name."
            )
        turn = subjects.setdefault(subject, [])
        turns.append((len(turn), subject, doc))
        turn.append(doc)
    chosen = sorted(turns, key=lambda entry: entry[:2])[:limit]
    return [
        _part(f"{FILES[task]}/mmlu_{subject}.yaml", [doc for _, of, doc in chosen if of == subject])
        for subject in dict.fromkeys(subject for _, subject, _ in chosen)
    ]


def _part(file: str, docs: list[dict[str, Any]]) -> Part:
    """Put rows and protocol into lm-eval's task file."""
    config = stock_config(file)
    for key in (*SPLITS, *SOURCES):
        config.pop(key, None)
    if description := config.pop("description", None):
        config["doc_to_text"] = description + config["doc_to_text"]
    config |= {"num_fewshot": 0, "custom_dataset": _dataset(docs)}
    if config["output_type"] == "multiple_choice":
        delimiter = config.get("target_delimiter", " ")
        config["doc_to_choice"] = [f"{delimiter}{choice}" for choice in config["doc_to_choice"]]
        config["target_delimiter"] = ""
    else:
        config["generation_kwargs"] = config["generation_kwargs"] | {"max_gen_toks": NEW_TOKENS}
    if config["task"] == "mbpp_instruct":
        config["gen_prefix"] = config["gen_prefix"].rstrip("\n")
    if config.pop("unsafe_code", False):
        bypass = {"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}
        config |= {"process_results": ungraded, "metric_list": [bypass]}
    return Part(name=config["task"], config=config, ids=tuple(doc["id"] for doc in docs))


def _dataset(docs: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    import datasets

    return lambda **_: {"test": datasets.Dataset.from_list(docs)}


def stock_config(file: str) -> dict[str, Any]:
    """Return one of lm-eval's task files with its includes and functions.

    Args:
        file: relative to lm-eval's tasks.
    """
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml  # private: lm-eval is pinned

    path = Path(lm_eval.tasks.__file__).parent / file
    with sandboxed_code_eval():
        config: dict[str, Any] = load_yaml(path, resolve_func=True)
    return config


def grade(
    task: str, of: Sequence[Part], samples: Mapping[str, Sequence[Sample]], timeout: float
) -> tuple[list[TaskScore], list[Record]]:
    """Return a benchmark's score and a record per row.

    Args:
        task: one of `FILES`.
        of: its parts.
        samples: lm-eval's, by part.
        timeout: seconds per generated program.
    """
    rows = [
        (part.ids[int(sample["doc_id"])], sample)
        for part in of
        for sample in sorted(samples[part.name], key=lambda sample: int(sample["doc_id"]))
    ]
    if task == "mmlu":
        records = [_letter(row_id, sample) for row_id, sample in rows]
        return rated(task, "acc", records), records
    if task == "gsm8k":
        records = joined(_numbers(rows))
        return rated(task, "exact_match", records), records
    records = joined(_programs(rows, timeout))
    return rated(task, "pass@1", records), records


def _record(row_id: str, sample: Sample, output: str, correct: bool) -> Record:
    return {
        "id": row_id,
        "prompt": sample["arguments"][0][0],
        "output": output,
        "target": str(sample["target"]),
        "correct": correct,
    }


def _letter(row_id: str, sample: Sample) -> Record:
    values = [float(value) for value, _ in sample["filtered_resps"]]
    options = [option for _, option in sample["arguments"]]
    record = _record(row_id, sample, options[values.index(max(values))], bool(sample["acc"]))
    return record | {
        "target": options[int(sample["target"])],
        "loglikelihoods": [round(v, 4) for v in values],
    }


def _numbers(rows: Sequence[tuple[str, Sample]]) -> list[Record]:
    """Take the last number for the answer (the papers' way); ``strict`` is whether the one after ``####`` is right."""
    strict = {int(sample["doc_id"]): sample for _, sample in rows if sample["filter"] == "strict-match"}
    records = []
    for row_id, sample in rows:
        if sample["filter"] == "flexible-extract":
            record = _record(row_id, sample, sample["resps"][0][0], bool(sample["exact_match"]))
            record["extracted"] = str(sample["filtered_resps"][0])
            records.append(record | {"strict": bool(strict[int(sample["doc_id"])]["exact_match"])})
    return records


def _programs(rows: Sequence[tuple[str, Sample]], timeout: float) -> list[Record]:
    """Run every row's program with its tests; a filter of lm-eval's has put the prompt before it where it belongs."""
    found = [sample["filtered_resps"][0] for _, sample in rows]
    candidates = [one if isinstance(one, str) else one[0] for one in found]
    sources = [
        program(text, str(sample["target"])) for text, (_, sample) in zip(candidates, rows, strict=True)
    ]
    outcomes = run_programs(sources, timeout=timeout)
    return [
        _record(row_id, sample, sample["resps"][0][0], outcome is Outcome.PASS) | {"outcome": outcome.value}
        for (row_id, sample), outcome in zip(rows, outcomes, strict=True)
    ]
