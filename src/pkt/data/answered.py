"""The teacher's answers to prompts without labels, and which of them become train rows.

answers.jsonl of the stage `answer` -> read -> kept (all | the confident | the verified) -> rows with prompt and answer

What is kept depends on the answers alone: no label of these rows was ever read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pkt.config import AnswerConfig
from pkt.errors import RequestError

FILE = "answers.jsonl"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of the teacher.

    Attributes:
        id: the prompt's.
        task: whose prompt it is.
        prompt: as the row has it, before any chat template.
        sample: number of the answer to this prompt, from 0.
        text: the answer, up to its end or the task's stop string.
        loglikelihood: natural logarithm of the teacher's probability of the text behind the prompt, without the end
            token (a text that ran into a stop string has none).
        tokens: tokens of the text.
        said: what answers have to share to agree; None: they cannot be compared.
        passed: whether the row's test passed; None: it was not run.
    """

    id: str
    task: str
    prompt: str
    sample: int
    text: str
    loglikelihood: float
    tokens: int
    said: str | None = None
    passed: bool | None = None

    @property
    def confidence(self) -> float:
        """Mean log-probability per token."""
        return self.loglikelihood / max(self.tokens, 1)


def write(answers: Iterable[Answer], folder: Path) -> None:
    """Write answers as JSON lines."""
    lines = [json.dumps(asdict(answer), ensure_ascii=False) for answer in answers]
    (folder / FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(folder: Path) -> list[Answer]:
    """Read what `write` wrote."""
    lines = (folder / FILE).read_text(encoding="utf-8").split("\n")
    return [Answer(**json.loads(line)) for line in lines if line]


def kept(answers: Sequence[Answer], config: AnswerConfig) -> list[dict[str, Any]]:
    """Return train rows of the answers that are kept, in their order; blank answers never are.

    Args:
        answers: all of the stage; the samples of a prompt follow one another.
        config: how they are chosen.

    Raises:
        RequestError: the teacher answered nothing, or the choice leaves none.
    """
    said = [answer for answer in answers if answer.text.strip()]
    if not said:
        raise RequestError(
            f"the teacher's {len(answers)} answers are all blank: it ends at once after these prompts, or they leave "
            "its context no room for an answer. Look at the prompts (data.unlabelled), answer.max_new_tokens, "
            "model.chat_template, and answer.temperature."
        )
    chosen = {"all": _all, "confident": _confident, "verified": _verified}[config.keep](said, config)
    if not chosen:
        raise RequestError(
            f"answer.keep={config.keep} leaves none of the teacher's {len(said)} answers: no program (prompt, answer "
            "and test, one behind the other) passed, and too few answers agree. Lower answer.agreement, raise "
            "answer.samples, or set answer.keep=all."
        )
    several = config.samples > 1
    return [
        {
            "id": f"{answer.id}#{answer.sample}" if several else answer.id,
            "prompt": answer.prompt,
            "answer": answer.text,
            "split": "train",
        }
        for answer in chosen
    ]


def _all(answers: Sequence[Answer], _config: AnswerConfig) -> list[Answer]:
    return list(answers)


def _confident(answers: Sequence[Answer], config: AnswerConfig) -> list[Answer]:
    """Return the share of each task's answers that the teacher is most sure of; of equal ones the first."""
    best: set[int] = set()
    for task in dict.fromkeys(answer.task for answer in answers):
        own = [i for i, answer in enumerate(answers) if answer.task == task]
        own.sort(key=lambda i: (-answers[i].confidence, i))
        best.update(own[: math.ceil(config.share * len(own))])
    return [answer for i, answer in enumerate(answers) if i in best]


def _verified(answers: Sequence[Answer], config: AnswerConfig) -> list[Answer]:
    """Return, per prompt, the programs that passed, each text once, or the answer that enough samples agree on."""
    found: list[Answer] = []
    for _, group in groupby(answers, key=lambda answer: (answer.task, answer.id)):
        own = list(group)
        if own[0].passed is not None:
            found += {answer.text: answer for answer in own if answer.passed}.values()
        else:
            found += _agreed(own, config)
    return found


def _agreed(own: Sequence[Answer], config: AnswerConfig) -> list[Answer]:
    """Return the likeliest of the answers that say what most samples say; all others count against it."""
    said, votes = max(
        Counter(answer.said for answer in own if answer.said is not None).items(),
        key=lambda claim: claim[1],
        default=(None, 0),
    )
    if votes < config.agreement * config.samples:
        return []
    return [max((answer for answer in own if answer.said == said), key=lambda answer: answer.confidence)]
