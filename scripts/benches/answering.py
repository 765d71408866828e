"""Answers of a model: likelihoods of given ones, against lm-eval's own model, and new ones, against row by row."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benches.case import Case, Numbers, Work
from benches.shape import Shape, few
from pkt.evaluation.answers import Question, answering, replies
from pkt.evaluation.quiet import quiet
from pkt.evaluation.sampling import Sampling

CHOICES = 4
ANSWER = 4  # tokens of a given answer


@lru_cache(maxsize=4)
def tokenizer(vocabulary: int) -> Any:
    """Return one whose tokens are words and a space before each: what a model writes is read as the same tokens."""
    words = ["<pad>", "<s>", "</s>", *(f" w{i}" for i in range(3, vocabulary))]
    inner = Tokenizer(models.WordLevel(vocab={word: i for i, word in enumerate(words)}, unk_token=words[3]))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def texts(shape: Shape) -> list[str]:
    """Return the prompts: the first halves of rows, of different lengths."""
    rows = shape.encoded().input_ids
    return [tokenizer(shape.vocabulary).decode(ids[: shape.tokens // 2 - i]) for i, ids in enumerate(rows)]


def questions(shape: Shape) -> list[Question]:
    """Return the prompts to be answered, each with room for an eighth of a row."""
    return [Question(text=text, until=(), most=max(2, shape.tokens // 8)) for text in texts(shape)]


def _scorer(model: Any, shape: Shape) -> AbstractContextManager[Any]:
    reader, device = tokenizer(shape.vocabulary), torch.device(shape.device)
    return answering(model, reader, batch_size=shape.rows, seed=0, chat=None, device=device)


def our_answers(shape: Shape) -> Work:
    """Prepare answers by batches."""
    model, asked = shape.student().model, questions(shape)

    def answers() -> Numbers:
        with _scorer(model, shape) as scorer:
            found = [reply for (reply,) in replies(scorer, asked, Sampling())]
        return _compared([reply.tokens for reply in found], [reply.loglikelihood for reply in found])

    return answers


def answers_row_by_row(shape: Shape) -> Work:
    """Prepare answers by transformers' `generate`, and a pass over each with logits everywhere."""
    model, asked, reader = shape.student().model, questions(shape), tokenizer(shape.vocabulary)

    @torch.no_grad()
    def answers() -> Numbers:
        lengths, likelihoods = [], []
        for question in asked:
            prompt = torch.tensor([reader(question.text)["input_ids"]], device=shape.device)
            whole = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=question.most, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip
            text = reader.decode(whole[0, prompt.shape[1] :], skip_special_tokens=True)
            answer = reader(text)["input_ids"]
            ids = torch.tensor([[*prompt[0].tolist(), *answer]], device=shape.device)
            logs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            places = torch.arange(prompt.shape[1] - 1, ids.shape[1] - 1)
            lengths.append(len(answer))
            likelihoods.append(
                float(logs[places.to(shape.device), torch.tensor(answer, device=shape.device)].sum())
            )
        return _compared(lengths, likelihoods)

    return answers


def _compared(lengths: list[int], likelihoods: list[float]) -> Numbers:
    return {"tokens": torch.tensor(lengths), "likelihoods": torch.tensor(likelihoods)}


def requests(shape: Shape) -> list[Any]:
    """Return a question with some answers per row."""
    rows, reader = shape.encoded().input_ids, tokenizer(shape.vocabulary)
    given = [
        reader.decode(ids[place : place + ANSWER])
        for ids in rows
        for place in range(len(ids) - CHOICES, len(ids))
    ]
    pairs = [(text, given[CHOICES * i + c]) for i, text in enumerate(texts(shape)) for c in range(CHOICES)]
    return [SimpleNamespace(args=pair) for pair in pairs]


def our_likelihoods(shape: Shape) -> Work:
    """Prepare likelihoods as pkt scores them."""
    shape = few(shape)
    model, asked = shape.student().model, requests(shape)

    def likelihoods() -> Numbers:
        with _scorer(model, shape) as scorer:
            return {"likelihoods": torch.tensor([value for value, _ in scorer.loglikelihood(asked)])}

    return likelihoods


def lm_eval_likelihoods(shape: Shape) -> Work:
    """Prepare likelihoods as lm-eval's Hugging Face model computes them."""
    shape = few(shape)
    model, asked = shape.student().model, requests(shape)

    def likelihoods() -> Numbers:
        with quiet():
            from lm_eval.models.huggingface import HFLM

            judge = HFLM(
                pretrained=model,
                tokenizer=tokenizer(shape.vocabulary),
                backend="causal",
                batch_size=shape.rows,
            )
            found = judge.loglikelihood(asked, disable_tqdm=True)
        return {"likelihoods": torch.tensor([value for value, _ in found])}

    return likelihoods


CASES = (
    Case(
        name="teacher_answers",
        title="answers to prompts, and their likelihoods",
        does="batches by length, logits of the answer alone",
        textbook_does="transformers' generate, row by row; logits everywhere",
        ours=our_answers,
        textbook=answers_row_by_row,
    ),
    Case(
        name="evaluation",
        title="scoring given answers, four per question",
        does="batches by length, logits of the answer alone",
        textbook_does="lm-eval's own model, batches of as many rows",
        ours=our_likelihoods,
        textbook=lm_eval_likelihoods,
    ),
)
