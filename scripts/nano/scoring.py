"""A direct scorer of the nano tasks, used while the models are made; `pkt eval` is the one for experiments.

Rows of one prompt length are scored together, so nothing is padded on the left.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import Tokenizer

from nano.family import EOS_ID, PAD_ID
from nano.rows import rows

Row = dict[str, Any]
LONGEST_ANSWER = 32


def passes(program: str) -> bool:
    """Run a program in this process and say whether it ended well; only for nano models' expressions."""
    with contextlib.suppress(Exception):
        exec(program, {"__name__": "answer"})
        return True
    return False


def standard_error(share: float, count: int) -> float:
    """Return the binomial standard error of a share."""
    return float((share * (1 - share) / count) ** 0.5)


def _by_length(texts: list[str], tokenizer: Tokenizer) -> Iterator[tuple[list[int], torch.Tensor]]:
    groups: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for index, encoding in enumerate(tokenizer.encode_batch(texts)):
        groups[len(encoding.ids)].append((index, encoding.ids))
    for group in groups.values():
        for start in range(0, len(group), 128):
            part = group[start : start + 128]
            yield [index for index, _ in part], torch.tensor([ids for _, ids in part])


@torch.no_grad()
def complete(model: Any, tokenizer: Tokenizer, prompts: list[str]) -> list[str]:
    """Continue prompts greedily up to the end token."""
    answers = [""] * len(prompts)
    for indices, ids in _by_length(prompts, tokenizer):
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=LONGEST_ANSWER,
            do_sample=False,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )
        for index, tokens in zip(indices, out[:, ids.shape[1] :].tolist(), strict=True):
            end = tokens.index(EOS_ID) if EOS_ID in tokens else len(tokens)
            answers[index] = tokenizer.decode(tokens[:end])
    return answers


@torch.no_grad()
def log_likelihoods(model: Any, tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> list[float]:
    """Sum the log-probabilities of each continuation after its prompt."""
    scores = [0.0] * len(pairs)
    starts = [len(tokenizer.encode(prompt).ids) for prompt, _ in pairs]
    for indices, ids in _by_length([prompt + answer for prompt, answer in pairs], tokenizer):
        logs = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
        each = logs[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        for index, line in zip(indices, each, strict=True):
            scores[index] = float(line[starts[index] - 1 :].sum())
    return scores


def score_rows(model: Any, tokenizer: Tokenizer, some: list[Row]) -> float:
    """Return the share of rows answered rightly: choice, exact match or pass@1, by what the rows carry."""
    if "choices" in some[0]:
        pairs = [(row["prompt"], f" {choice}") for row in some for choice in row["choices"]]
        flat = log_likelihoods(model, tokenizer, pairs)
        grouped = [flat[start : start + 4] for start in range(0, len(flat), 4)]
        right = [four.index(max(four)) == row["label"] for four, row in zip(grouped, some, strict=True)]
        return float(sum(right) / len(some))
    answers = complete(model, tokenizer, [row["prompt"] for row in some])
    if "test" in some[0]:
        right = [passes(f"{row['prompt']}{a}\n{row['test']}") for row, a in zip(some, answers, strict=True)]
    else:
        right = [a.strip() == row["answer"].strip() for row, a in zip(some, answers, strict=True)]
    return float(sum(right) / len(some))


def score(
    model: Any, tokenizer: Tokenizer, tasks: tuple[str, ...], split: str, count: int | None = None
) -> dict[str, float]:
    """Score a model on each task's split."""
    was_training = model.training
    model.eval()
    shares = {task: score_rows(model, tokenizer, rows(task, split, count=count)) for task in tasks}
    model.train(was_training)
    return shares
