"""The rows of a request: counted where models and rows are on this machine, else assumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pkt.config import SPLITS, Config
from pkt.errors import PktError, first_line
from pkt.planning.facts import Pair
from pkt.planning.rows import Counts, Rows, Scored
from pkt.tasks.suite import NEW_TOKENS

# tokens of prompt and answer, rows that are scored, and whether answers are written, of a task's mean row
TYPICAL = {
    "gsm8k": (75, 115, 1319, True),
    "mmlu": (130, 3, 14042, False),
    "humaneval": (150, 130, 164, True),
    "mbpp": (110, 70, 500, True),
}
ORDINARY = (128, 72, 500, True)  # of any other task


def assumed(config: Config, pair: Pair, why: str) -> Counts:
    """Return rows that are all alike, as many as the request asks for.

    Args:
        config: the request.
        pair: its models, whose contexts bound a row.
        why: the reader is told why they are not counted.
    """
    own, sizes = config.plan, config.data.sizes
    names = config.benchmark.tasks if config.benchmark.train is None else config.benchmark.train
    tasks = [TYPICAL.get(name.removesuffix("_instruct"), ORDINARY) for name in names]
    most = min(pair.teacher.context, pair.student.context, config.data.max_length or 2**31)

    def rows(count: int) -> Rows:
        found = Rows()
        for prompt, answer, *_ in tasks:
            answer = min(own.answer_tokens or answer, most - 1)
            found += Rows.alike(count, min(own.prompt_tokens or prompt, most - answer), answer)
        return found

    labelled = {
        name: min(getattr(sizes, name), sizes.labelled or 2**31) for name in ("extract", "align", "train")
    }
    prompts = (
        rows(sizes.unlabelled or max(sizes.train - labelled["train"], 0))
        if config.data.unlabelled
        else Rows()
    )
    per_task = ", ".join(
        sorted({f"{own.prompt_tokens or p} + {own.answer_tokens or a}" for p, a, *_ in tasks})
    )
    splits = {name: rows(labelled.get(name, sizes.validation)) for name in SPLITS}
    return Counts(
        splits=splits,
        prompts=prompts if config.data.unlabelled is not None else splits["train"],
        scored=[_typical(name, config) for name in dict.fromkeys(config.benchmark.tasks)],
        told=f"assumed to have {per_task} tokens (prompt + answer; plan.prompt_tokens, plan.answer_tokens): {why}",
    )


def _typical(name: str, config: Config) -> Scored:
    prompt, answer, count, writes = TYPICAL.get(name.removesuffix("_instruct"), ORDINARY)
    count = min(count, config.eval.limit or count)
    answer = min(config.plan.answer_tokens or answer, config.eval.max_new_tokens or NEW_TOKENS)
    return Scored(
        task=name, rows=Rows.alike(count, config.plan.prompt_tokens or prompt, answer), writes=writes
    )


def counted(bench: Any) -> Counts:
    """Count the tokens of a request's own rows.

    Args:
        bench: its `Workbench`, of which no weights are asked for.

    Raises:
        PktError: rows that cannot be had.
    """
    splits = {name: _rows(bench.labelled(name)) for name in SPLITS}
    return Counts(
        splits=splits,
        prompts=_prompts(bench, splits),
        scored=_scored(bench),
        told="counted on the request's own rows; answers that are written are taken to be as long as the labels"
        + _of_two_vocabularies(bench),
    )


def _of_two_vocabularies(bench: Any) -> str:
    """Say how the teacher reads the train rows in its own tokens; nothing where it reads the student's, or none."""
    objective = bench.objective
    if not (objective.layer_terms or objective.reads_outputs) or bench.one_vocabulary:
        return ""
    from pkt.methods.readings import read_by

    # reading them says at how many positions both models are compared
    own, theirs = (sum(read_by(bench, who, "train", labelled=True).lengths) for who in ("student", "teacher"))
    return f"; tokens are the student's, of which the teacher's are {theirs / max(own, 1):.2f} times as many"


def _rows(encoded: Any) -> Rows:
    lengths = tuple(encoded.lengths)
    answers = tuple(length - prompt for length, prompt in zip(lengths, encoded.prompt_lengths, strict=True))
    return Rows(lengths=lengths, answers=answers)


def _prompts(bench: Any, splits: Mapping[str, Rows]) -> Rows:
    """Return the prompts that the teacher answers, with answers as long as the mean label."""
    if bench.config.data.unlabelled is None:
        return splits["train"]
    train = splits["train"]
    answer = round(train.positions("answer") / len(train)) if len(train) else 1
    ids = [len(bench.tokenizer(prompt.text)["input_ids"]) for prompt in bench.prompts]
    return Rows(lengths=tuple(length + answer for length in ids), answers=(answer,) * len(ids))


def _scored(bench: Any) -> list[Scored]:
    """Count the rows that are scored; those that lm-eval reads itself are taken to be ordinary."""
    from pkt.stages.evaluate import asked

    of, limit, found = asked(bench), bench.config.eval.limit, list[Scored]()
    for task in of.tasks:
        rows = [row for row in of.rows[task.name][:limit] if {"prompt", "answer"} <= row.keys()]
        if not rows:
            found.append(_typical(task.name, bench.config))
            continue
        texts = [
            (bench.tokenizer(str(row[name]))["input_ids"] for name in ("prompt", "answer")) for row in rows
        ]
        sizes = [tuple(map(len, pair)) for pair in texts]
        own = Rows(lengths=tuple(map(sum, sizes)), answers=tuple(answer for _, answer in sizes))
        found.append(Scored(task=task.name, rows=own, writes=task.decoding is not None))
    return found


def why_not(error: PktError) -> str:
    """Return why rows are not counted, in a line."""
    return first_line(error)
