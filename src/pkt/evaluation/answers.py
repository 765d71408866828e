"""Let a model answer prompts, and say how likely each answer is to it.

    questions -> Scorer.generate_until (batched by length, padded on the left) -> texts
              -> Scorer.loglikelihood (one pass over prompt and text, without a cache) -> log-probabilities

Answers are greedy or drawn as in scoring: each draw has a generator of its own, seeded by prompt and number. Generation
settings in the model's folder are left out (`neutral`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pkt.data.chat import Chat
from pkt.data.encoding import encode_answers
from pkt.evaluation.engines import scorer_of
from pkt.evaluation.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a model is asked.

    Attributes:
        text: the prompt as the model reads it.
        until: stop strings.
        most: the largest number of new tokens.
    """

    text: str
    until: tuple[str, ...]
    most: int


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer.

    Attributes:
        text: up to the end token or the first stop string; empty where the prompt would have to be cut to leave room
            for it, or where the two are longer than the context.
        loglikelihood: natural logarithm of its probability, without what ended it; 0 of a blank text.
        tokens: tokens of the text.
    """

    text: str
    loglikelihood: float
    tokens: int


@contextmanager
def answering(
    model: Any, tokenizer: Any, *, batch_size: int, seed: int, chat: Chat | None, device: Any
) -> Iterator[Any]:
    """Yield what `replies` asks; arguments as of `pkt.evaluation.harness.evaluate`."""
    with scorer_of(model, tokenizer, device=device, batch_size=batch_size, seed=seed, chat=chat) as scorer:
        yield scorer


def replies(scorer: Any, questions: Sequence[Question], sampling: Sampling) -> list[list[Reply]]:
    """Return the answers to each question.

    Args:
        scorer: from `answering`.
        questions: with different texts.
        sampling: how many answers, and how they are drawn.
    """
    prompts = scorer.encode_prompts([question.text for question in questions])
    whole = [question for question in questions if len(prompts[question.text]) <= scorer.room(question.most)]
    asked = [question for question in whole for _ in range(sampling.samples)]
    texts: list[str] = scorer.generate_until([_continue(question, sampling) for question in asked])
    said = [(question.text, text) for question, text in zip(asked, texts, strict=True)]
    lengths = map(len, encode_answers(scorer.tokenizer, texts))
    scored = [
        SimpleNamespace(args=pair)
        for pair, length in zip(said, lengths, strict=True)
        if pair[1].strip() and len(prompts[pair[0]]) + length <= scorer.max_length
    ]
    scorer.loglikelihood(scored)
    found: dict[str, list[Reply]] = {}
    for pair in said:
        found.setdefault(pair[0], []).append(_reply(scorer, *pair))
    blank = [Reply(text="", loglikelihood=0.0, tokens=0)] * sampling.samples
    return [found.get(question.text, blank) for question in questions]


def _continue(question: Question, sampling: Sampling) -> Any:
    rules = {"until": list(question.until), "max_gen_toks": question.most, "do_sample": False}
    return SimpleNamespace(args=(question.text, rules | sampling.settings()), task_name="answer")


def _reply(scorer: Any, prompt: str, text: str) -> Reply:
    if (hits := scorer.hits.get((prompt, text))) is None:
        return Reply(text="" if text.strip() else text, loglikelihood=0.0, tokens=0)
    return Reply(text=text, loglikelihood=hits.loglikelihood, tokens=hits.tokens)
