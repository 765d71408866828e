"""The four kinds of grading; each writes a task's requests to lm-eval and grades the answers.

    Choice      most likely option is the labelled one                               acc
    Exact       generated text equals the answer, white space at the ends aside       exact_match
    Program     prompt + generated text + test runs to its end in the sandbox         pass@1
    Likelihood  -log2 P(answer | prompt) over the answer's UTF-8 bytes, and the       bits_per_byte,
                share of the answer's tokens that were the model's first choice       token_accuracy

An answer that cannot be read is wrong: an empty text, an empty target, a likelihood that is no number. A likelihood
leaves out the end-of-text token; its two scores are ratios of sums over rows, not means of the rows' ratios. A row that
is answered n times counts as its share of right answers (pass@1), and has pass@10 and pass@100 if n is large enough.
Standard errors are over rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pkt.evaluation.parts import Logged, Record, Sample
from pkt.evaluation.results import TaskScore
from pkt.evaluation.statistics import Estimate, mean, ratio
from pkt.sandbox import Outcome, run_programs

AT = (10, 100)  # k of pass@k, beside 1
Answers = Sequence[tuple[str, Sample]]
"""(row id, what lm-eval logged) of each answer, in the order of the rows."""


@dataclass(frozen=True, kw_only=True)
class Grading:
    """A way to ask a model about a row and to grade its answer; a subclass judges answers one by one or all at once.

    Attributes:
        kind: its name in the names of lm-eval tasks, where a task has several gradings.
        metric: the name of its first score; unless `scores` is replaced, that is the share of right answers.
        columns: the columns of a row that decide its prompt, verdict or record, beside its id.
        generates: whether the model writes an answer, so that several can be drawn.
    """

    kind: ClassVar[str]
    metric: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("prompt", "answer")
    generates: ClassVar[bool] = False

    def config(self) -> dict[str, Any]:
        """Return the keys of the lm-eval config that describe the requests."""
        raise NotImplementedError

    def claim(self, answer: str) -> str | None:
        """Return what two answers to a row have to share to say the same; None where texts cannot be compared."""
        return None

    def grade(self, answers: Answers, logged: Logged) -> list[Record]:
        """Return a record per row."""
        return joined([self.judged(row_id, sample) for row_id, sample in answers])

    def judged(self, row_id: str, sample: Sample) -> Record:
        """Return the record of one answer."""
        raise NotImplementedError

    def scores(self, task: str, records: Sequence[Record]) -> list[TaskScore]:
        """Return the scores over all rows, the headline first: the share of right answers, and any pass@k."""
        fields = {self.metric: "correct"} | {key: key for k in AT if (key := f"pass@{k}") in records[0]}
        values = {name: [float(row[field]) for row in records] for name, field in fields.items()}
        return [score(task, name, mean(of), len(of)) for name, of in values.items()]


@dataclass(frozen=True, kw_only=True)
class Choice(Grading):
    """The option with the highest summed log-likelihood is the labelled one; of equal options the first counts."""

    kind = "choice"
    metric = "acc"
    columns = ("prompt", "choices", "label")

    def config(self) -> dict[str, Any]:
        """Ask for the likelihood of each option, set off from the prompt by white space."""
        return {"output_type": "multiple_choice", "doc_to_choice": options, "doc_to_target": "label"}

    def claim(self, answer: str) -> str:
        """See `Grading`: the text of an option."""
        return answer.strip()

    def judged(self, row_id: str, sample: Sample) -> Record:
        """Compare the likeliest option with the labelled one."""
        values = [float(value) for value, _ in sample["filtered_resps"]]
        texts, label = [option for _, option in sample["arguments"]], int(sample["target"])
        best = None if any(map(math.isnan, values)) else values.index(max(values))
        output = "" if best is None else texts[best]
        found = record(row_id, sample, output, texts[label], best == label)
        return found | {"loglikelihoods": [round(value, 4) for value in values]}


@dataclass(frozen=True, kw_only=True)
class Generated(Grading):
    """Base of the gradings of answers that the model writes.

    Attributes:
        until: stop strings, beside the end-of-text token.
        new_tokens: the largest number of new tokens.
    """

    until: tuple[str, ...]
    new_tokens: int
    generates = True

    def config(self) -> dict[str, Any]:
        """Ask for a greedy continuation."""
        how = {"until": list(self.until), "max_gen_toks": self.new_tokens, "do_sample": False}
        return {"output_type": "generate_until", "generation_kwargs": how}


@dataclass(frozen=True, kw_only=True)
class Exact(Generated):
    """The generated text equals the answer."""

    kind = "generate"
    metric = "exact_match"

    def claim(self, answer: str) -> str | None:
        """See `Grading`: all but the white space at the ends."""
        return answer.strip()

    def judged(self, row_id: str, sample: Sample) -> Record:
        """Compare text and answer without the white space at their ends."""
        output, target = text(sample), str(sample["doc"]["answer"])
        right = bool(output.strip()) and output.strip() == target.strip()
        return record(row_id, sample, output, target, right)


@dataclass(frozen=True, kw_only=True)
class Program(Generated):
    """A program of the row's prompt, the text and the row's test runs to its end; all programs run in one go."""

    kind = "program"
    metric = "pass@1"
    columns = ("prompt", "answer", "test")

    def candidate(self, sample: Sample) -> str:
        """Return the code under test, with the row's prompt as it was before any chat template."""
        return f"{sample['doc']['prompt']}{text(sample)}"

    def test(self, sample: Sample) -> str:
        """Return the code that tests it."""
        return str(sample["doc"]["test"])

    def target(self, sample: Sample) -> str:
        """Return what the record shows as the right answer."""
        return str(sample["doc"]["answer"])

    def grade(self, answers: Answers, logged: Logged) -> list[Record]:
        """Run the programs in the sandbox."""
        sources = [f"{self.candidate(sample)}\n{self.test(sample)}" for _, sample in answers]
        outcomes = run_programs(sources, timeout=logged.timeout)
        found = []
        for (row_id, sample), outcome in zip(answers, outcomes, strict=True):
            answered = bool(text(sample).strip() and self.test(sample).strip())
            right = outcome is Outcome.PASS and answered
            found.append(record(row_id, sample, text(sample), self.target(sample), right))
            found[-1]["outcome"] = outcome.value
        return joined(found)


@dataclass(frozen=True, kw_only=True)
class Likelihood(Grading):
    """How likely the answer is to the model."""

    kind = "likelihood"
    metric = "bits_per_byte"

    def config(self) -> dict[str, Any]:
        """Ask for the answer's likelihood."""
        return {"output_type": "loglikelihood"}

    def grade(self, answers: Answers, logged: Logged) -> list[Record]:
        """Count bits and first choices; a row is right where every token of its answer was the first choice."""
        return [self._record(row_id, sample, logged.hits) for row_id, sample in answers]

    def _record(self, row_id: str, sample: Sample, hits: Mapping[Any, Any]) -> Record:
        found, target = hits[tuple(sample["arguments"][0])], str(sample["doc"]["answer"])
        known = not math.isnan(found.loglikelihood)
        right = found.right if known else 0
        return record(row_id, sample, "", target, 0 < found.tokens == right) | {
            "bits": -found.loglikelihood / math.log(2),
            "bytes": len(target.encode("utf-8")),
            "tokens": found.tokens,
            "right": right,
        }

    def scores(self, task: str, records: Sequence[Record]) -> list[TaskScore]:
        """Return bits per byte and token accuracy."""
        bits, length, right, tokens = (
            [row[key] for row in records] for key in ("bits", "bytes", "right", "tokens")
        )
        return [
            score(task, self.metric, ratio(bits, length), len(records), higher=False),
            score(task, "token_accuracy", ratio(right, tokens), len(records)),
        ]


def options(doc: Mapping[str, Any]) -> list[str]:
    """Return a row's options, each with the white space that separates it from the prompt."""
    return [choice if choice[:1].isspace() else f" {choice}" for choice in doc["choices"]]


def text(sample: Sample) -> str:
    """Return what the model wrote, before any filter."""
    return str(sample["resps"][0][0])


def record(row_id: str, sample: Sample, output: str, target: str, correct: bool) -> Record:
    """Return the fields that every record has."""
    prompt = sample["arguments"][0][0]
    return {"id": row_id, "prompt": prompt, "output": output, "target": target, "correct": correct}


def joined(records: Sequence[Record]) -> list[Record]:
    """Join the records of rows that were answered several times.

    Args:
        records: one per answer; those of a row have its id.

    Returns:
        One per row. A row with several answers keeps them in ``samples``; its flags become shares of them, and the
        row of a program gets ``pass@10`` and ``pass@100`` where it has as many.
    """
    rows: dict[str, list[Record]] = {}
    for one in records:
        rows.setdefault(one["id"], []).append(one)
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


def pass_at(k: int, n: int, right: int) -> float:
    """Return the chance that k of n candidates hold a right one: ``1 - C(n - right, k) / C(n, k)``."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def score(task: str, metric: str, estimate: Estimate, n: int, *, higher: bool = True) -> TaskScore:
    """Return an estimate under its name."""
    return TaskScore(
        task=task, metric=metric, value=estimate.value, stderr=estimate.stderr, n=n, higher_is_better=higher
    )
