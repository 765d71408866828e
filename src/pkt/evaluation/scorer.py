"""lm-eval's Hugging Face model with pkt's token boundaries, batches by length, and a record of token hits.

    requests -> tokens as in training -> batches by length -> log-likelihoods | greedy continuations

What differs from `HFLM`, and why: prompt and answer are tokenised apart, as in training, so a model is scored on the
tokens that it learnt; the head reads the answer's positions only; a context that is too small is an error and not a
silent cut; text is cut from the decoded whole, because some tokenizers drop a leading space otherwise.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import GenerationConfig, StoppingCriteria

from pkt.data.encoding import encode_prompt
from pkt.errors import RequestError

TOKENS_PER_ROW = 128  # a batch of log-likelihoods holds batch_size times as many tokens
LOGITS = 2**27  # numbers in one batch's logits, at most (0.5 GB in float32)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """How an answer's tokens fared: natural log-likelihood, tokens, and tokens that were the model's first choice."""

    loglikelihood: float
    tokens: int
    right: int


class Stop(StoppingCriteria):  # type: ignore[misc]
    """Stop a row once its new text holds one of the stop strings."""

    def __init__(self, tokenizer: Any, strings: Sequence[str], start: int) -> None:
        self.tokenizer, self.strings, self.start = tokenizer, tuple(strings), start
        self.tail = max(8, *map(len, strings))  # tokens that certainly hold a whole stop string
        self.done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return which rows are done."""
        if self.done is None:
            self.done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        live = (~self.done).nonzero().flatten().tolist()
        recent = input_ids[:, max(self.start, input_ids.shape[1] - self.tail) :][live].tolist()
        for row, text in zip(live, self.tokenizer.batch_decode(recent), strict=True):
            if any(string in text for string in self.strings):
                self.done[row] = True
        return self.done


class Scorer(HFLM):  # type: ignore[misc]
    """Answers lm-eval's requests; `hits` maps (context, continuation) to what became of its tokens."""

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int) -> None:
        if tokenizer.pad_token_id is None:
            tokenizer = copy.deepcopy(tokenizer)  # lm-eval would set a padding token on the user's
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)
        self.hits: dict[tuple[str, str], Hits] = {}
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._vocabulary = int(model.get_output_embeddings().weight.shape[0])

    def encode_prompts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Tokenise prompts as training does; an empty one is read as the prefix token (BOS, or else EOS)."""
        encoded = {text: encode_prompt(self.tokenizer, text) for text in dict.fromkeys(texts)}
        return {text: ids or [self.prefix_token_id] for text, ids in encoded.items()}

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-likelihood, whether greedy decoding gives it) per request, and fill `hits`."""
        pairs = [tuple(request.args) for request in requests]
        prompts = self.encode_prompts([context for context, _ in pairs])
        answers = list(dict.fromkeys(continuation for _, continuation in pairs))
        tokens = self.tokenizer(answers, add_special_tokens=False)["input_ids"]
        continuations = dict(zip(answers, tokens, strict=True))
        jobs: dict[tuple[int, ...], list[tuple[str, str]]] = {}  # what the model reads -> who asks
        for context, continuation in dict.fromkeys(pairs):
            ids = prompts[context] + continuations[continuation]
            self._check(len(ids) - 1, 0, context)
            jobs.setdefault(tuple(ids[:-1]), []).append((context, continuation))
        for batch in self._batches(list(jobs)):
            self._score(batch, jobs, continuations)
        found = [self.hits[pair] for pair in pairs]
        return [(hits.loglikelihood, hits.right == hits.tokens) for hits in found]

    def _check(self, length: int, room: int, prompt: str) -> None:
        if length + room > self.max_length:
            raise RequestError(
                f"a test row has {length} tokens{' and asks for more' if room else ''}, the model's context holds "
                f"{self.max_length}: choose a task with shorter rows or a model with a longer context. "
                f"The row begins {prompt[:60]!r}"
            )

    def _batches(self, inputs: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Yield inputs longest first, as many at a time as the token budget holds."""
        budget = min(int(self.batch_size) * TOKENS_PER_ROW, LOGITS // self._vocabulary)
        inputs = sorted(inputs, key=lambda ids: (-len(ids), ids))
        start = 0
        while start < len(inputs):
            count = max(1, budget // len(inputs[start]))
            yield inputs[start : start + count]
            start += count

    def _score(
        self,
        batch: list[tuple[int, ...]],
        jobs: dict[tuple[int, ...], list[tuple[str, str]]],
        continuations: dict[str, list[int]],
    ) -> None:
        """Score one batch: padding on the right needs no mask in a causal model."""
        asked = [(row, pair) for row, ids in enumerate(batch) for pair in jobs[ids]]
        answers = [continuations[pair[1]] for _, pair in asked]
        starts = [len(batch[row]) - len(ids) for (row, _), ids in zip(asked, answers, strict=True)]
        low = min(*starts, max(map(len, batch)) - 1)
        logits_BKV = self._logits(batch, low)
        rows = [row for (row, _), ids in zip(asked, answers, strict=True) for _ in ids]
        places = [s - low + i for s, ids in zip(starts, answers, strict=True) for i in range(len(ids))]
        targets = torch.tensor([token for ids in answers for token in ids], device=self.device)
        picked_NV = logits_BKV[rows, places].float()
        logs = picked_NV.log_softmax(-1).gather(-1, targets[:, None]).flatten().double().cpu()
        right = (picked_NV.argmax(-1) == targets).cpu()
        sizes = [len(ids) for ids in answers]
        for (_, pair), log, hit in zip(
            asked, torch.split(logs, sizes), torch.split(right, sizes), strict=True
        ):
            self.hits[pair] = Hits(loglikelihood=float(log.sum()), tokens=len(log), right=int(hit.sum()))

    @torch.inference_mode()
    def _logits(self, batch: list[tuple[int, ...]], low: int) -> torch.Tensor:
        """Return the logits from position `low` on."""
        longest = max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch], device=self.device)
        keep = {"logits_to_keep": longest - low} if self._keeps else {}
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=False, **keep).logits
        return logits[:, -(longest - low) :]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue prompts greedily, up to the end-of-text token or one of the task's stop strings."""
        asked = [(context, _settings(given)) for context, given in (request.args for request in requests)]
        prompts = self.encode_prompts([context for context, _ in asked])
        done: dict[tuple[str, tuple[int, tuple[str, ...]]], str] = {}
        for settings in dict.fromkeys(settings for _, settings in asked):
            texts = dict.fromkeys(context for context, given in asked if given == settings)
            order = sorted(texts, key=lambda text: (-len(prompts[text]), text))
            for start in range(0, len(order), int(self.batch_size)):
                part = order[start : start + int(self.batch_size)]
                outputs = self._generate([prompts[text] for text in part], part, *settings)
                done |= {(text, settings): out for text, out in zip(part, outputs, strict=True)}
        return [done[pair] for pair in asked]

    @torch.inference_mode()
    def _generate(
        self, prompts: list[list[int]], texts: Sequence[str], most: int, until: tuple[str, ...]
    ) -> list[str]:
        """Continue a batch, padded on the left, by at most `most` tokens or what the context leaves."""
        longest = max(map(len, prompts))
        self._check(longest, 1, texts[0])
        pad, end = self.tokenizer.pad_token_id, self._ends()
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=self.device)
        mask = torch.tensor(
            [[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=self.device
        )
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=GenerationConfig(
                max_new_tokens=min(most, self.max_length - longest),
                do_sample=False,
                num_beams=1,
                eos_token_id=end,
                pad_token_id=pad,
            ),
            stopping_criteria=[Stop(self.tokenizer, until, longest)] if until else None,
        )
        new = [_before(row, set(end)) for row in out[:, longest:].tolist()]
        return [self._text(prompt, row, until) for prompt, row in zip(prompts, new, strict=True)]

    def _ends(self) -> list[int]:
        """Return the tokens that end a text: the tokenizer's and those of the model's generation settings."""
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        more = configured if isinstance(configured, list) else [configured]
        return sorted({token for token in [self.tokenizer.eos_token_id, *more] if token is not None})

    def _text(self, prompt: list[int], new: list[int], until: tuple[str, ...]) -> str:
        """Decode new tokens in the prompt's company, and cut at the first stop string."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        before = self.tokenizer.decode(prompt, **options)
        whole = self.tokenizer.decode(prompt + new, **options)
        joined = whole.startswith(before)
        text: str = whole[len(before) :] if joined else self.tokenizer.decode(new, **options)
        for stop in until:
            text = text.split(stop, 1)[0]
        return text


def _settings(given: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Return the most new tokens and the stop strings that a task file asks for."""
    until = given.get("until") or ()
    return int(given.get("max_gen_toks", 256)), (until,) if isinstance(until, str) else tuple(until)


def _before(row: list[int], ends: set[int]) -> list[int]:
    """Return a row up to its first end token."""
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
