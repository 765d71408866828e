"""lm-eval's Hugging Face model, changed to tokenise as training does, to batch by length and to record token hits.

    requests -> tokens as in training -> batches by length -> log-likelihoods | continuations

Differences from `HFLM`: prompt and answer are tokenised separately, as in training, so that a model is scored on the
tokens that it learnt; logits are computed at the answer's positions only; draws do not depend on the other rows of a
batch; new text is decoded together with its prompt, because some tokenizers drop a leading space otherwise. A prompt
that is too long is cut on the left, as in `HFLM`, and is recorded.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import GenerationConfig

from pkt.data.chat import Chat
from pkt.data.encoding import encode_answers, encode_prompt
from pkt.errors import RequestError, first_line
from pkt.evaluation.criteria import Numbers, Stop, check_numbers
from pkt.evaluation.decoding import DRAWING, MODEL, NEUTRAL, STOCK_TOP_K, effective, own
from pkt.evaluation.drawing import Draw
from pkt.evaluation.sampling import row_seed
from pkt.late import torch
from pkt.processes import ALONE, Processes

TOKENS_PER_ROW = 128  # a batch of log-likelihoods holds batch_size times as many tokens
LOGITS = 2**27  # numbers in one batch's logits, at most (0.5 GB in float32)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Of an answer: its natural log-likelihood, its tokens, and how many of them were the model's first choice."""

    loglikelihood: float
    tokens: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a prompt is to be continued.

    Attributes:
        most: the largest number of new tokens.
        until: stop strings.
        temperature: 0 is greedy.
        more: whatever else decides, by transformers' names (``top_p``, ``repetition_penalty``, ...), as JSON.
    """

    most: int
    until: tuple[str, ...] = ()
    temperature: float = 0.0
    more: str = "{}"

    def read_the_prompt(self) -> bool:
        """Return whether the model's tokens are judged by more than its logits."""
        return bool(json.loads(self.more).keys() - set(DRAWING))


class Scorer(HFLM):  # type: ignore[misc]
    """The model that lm-eval sends its requests to.

    `hits` maps (context, continuation) to `Hits`; `cut` holds the contexts that were cut on the left; `decoded` says
    how the answers of each lm-eval task were made.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int,
        seed: int = 0,
        chat: Chat | None = None,
        follow: Collection[str] = (),
        processes: Processes = ALONE,
    ) -> None:
        """Wrap a model.

        Args:
            model: see `evaluate`.
            tokenizer: its tokenizer.
            batch_size: rows at a time.
            seed: of draws.
            chat: the chat template, if prompts are put into it.
            follow: lm-eval tasks whose answers are made by the model's own generation settings.
            processes: who runs it: each a part of the batches, and all of them know every answer.
        """
        if tokenizer.pad_token_id is None:
            tokenizer = copy.deepcopy(tokenizer)  # lm-eval would set a padding token on the user's
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)
        self.hits: dict[tuple[str, str], Hits] = {}
        self.cut: set[str] = set()
        self.decoded: dict[str, dict[str, Any]] = {}
        self._seed, self._chat, self._follow = seed, chat, frozenset(follow)
        self._processes = processes
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._vocabulary = int(model.get_output_embeddings().weight.shape[0])

    def encode_prompts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Tokenise prompts as training does; an empty prompt becomes the prefix token (BOS, or else EOS)."""
        encoded = {text: encode_prompt(self.tokenizer, text) for text in dict.fromkeys(texts)}
        return {text: ids or [self.prefix_token_id] for text, ids in encoded.items()}

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-likelihood, whether greedy decoding gives it) per request, and fill `hits`."""
        pairs = [tuple(request.args) for request in requests]
        prompts = self.encode_prompts([context for context, _ in pairs])
        answers = list(dict.fromkeys(continuation for _, continuation in pairs))
        continuations = dict(zip(answers, encode_answers(self.tokenizer, answers), strict=True))
        jobs: dict[tuple[int, ...], list[tuple[str, str]]] = {}  # what the model reads -> who asks
        for context, continuation in dict.fromkeys(pairs):
            answer = continuations[continuation]
            if len(answer) > self.max_length:
                raise RequestError(
                    f"an answer to be scored has {len(answer)} tokens, the model's context holds {self.max_length}: "
                    f"choose another task or a model with a longer context. It begins {continuation[:60]!r}"
                )
            ids = self._fitting(context, prompts[context], self.max_length + 1 - len(answer)) + answer
            jobs.setdefault(tuple(ids[:-1]), []).append((context, continuation))
        for batch in self._processes.own(list(self._batches(list(jobs)))):
            self._score(batch, jobs, continuations)
        for hits_of_one in self._processes.joined(self.hits):
            self.hits |= hits_of_one
        found = [self.hits[pair] for pair in pairs]
        return [(hits.loglikelihood, hits.right == hits.tokens) for hits in found]

    def _fitting(self, context: str, ids: list[int], room: int) -> list[int]:
        """Return a prompt's tokens, or the last ones where there is no room for all."""
        if len(ids) <= room:
            return ids
        self.cut.add(context)
        return ids[-room:]

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
        check_numbers(logs)
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
        """Continue prompts, up to the end-of-text token or one of the task's stop strings.

        A prompt that is asked several times gets one greedy continuation, or as many different draws.
        """
        asked: list[tuple[str, Settings, int]] = []
        times: Counter[str] = Counter()
        told: dict[tuple[str, str], Settings] = {}  # all rows of a task are asked in one way
        for request in requests:
            context, given = request.args
            task = str(getattr(request, "task_name", ""))
            if (how := (task, repr(given))) not in told:
                told[how] = self._told(task, given)
            settings = told[how]
            asked.append((context, settings, times[context] if settings.temperature else 0))
            times[context] += 1
        prompts = self.encode_prompts([context for context, _, _ in asked])
        done: dict[tuple[str, Settings, int], str] = {}
        for settings in dict.fromkeys(settings for _, settings, _ in asked):
            jobs = dict.fromkeys((text, number) for text, given, number in asked if given == settings)
            order = sorted(jobs, key=lambda job: (-len(prompts[job[0]]), *job))
            for part in self._processes.own(list(self._parts(order, prompts, settings))):
                outputs = self._generate([prompts[text] for text, _ in part], part, settings)
                done |= {
                    (text, settings, number): out for (text, number), out in zip(part, outputs, strict=True)
                }
        for done_by_one in self._processes.joined(done):
            done |= done_by_one
        return [done[job] for job in asked]

    def _parts(
        self, order: Sequence[tuple[str, int]], prompts: Mapping[str, list[int]], settings: Settings
    ) -> Iterator[list[tuple[str, int]]]:
        """Cut jobs, longest first, into batches; of equal lengths where padding would count as text.

        transformers' penalties, least lengths and n-grams read the padding too, so an answer would depend on the rows
        beside it.
        """
        size = int(self.batch_size)
        alike = [list(order)]
        if settings.read_the_prompt():
            alike = [list(some) for _, some in itertools.groupby(order, lambda job: len(prompts[job[0]]))]
        for some in alike:
            yield from (some[start : start + size] for start in range(0, len(some), size))

    def room(self, most: int) -> int:
        """Return how many tokens of a prompt are read where `most` new ones are asked for."""
        return int(max(self.max_length - most, self.max_length // 2))

    @torch.inference_mode()
    def _generate(
        self, prompts: list[list[int]], jobs: Sequence[tuple[str, int]], settings: Settings
    ) -> list[str]:
        """Continue a batch, padded on the left; a prompt that leaves no room for the new tokens is cut.

        A prompt keeps at least half of the context, also where more new tokens are asked for (lm-eval refuses that).
        """
        room = self.room(settings.most)
        prompts = [self._fitting(text, ids, room) for (text, _), ids in zip(jobs, prompts, strict=True)]
        longest = max(map(len, prompts))
        pad, end = self.tokenizer.pad_token_id, self._ends()
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=self.device)
        mask = torch.tensor(
            [[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=self.device
        )
        more = {name: value for name, value in json.loads(settings.more).items() if name not in DRAWING}
        with _neutral(self.model), _applying(more):
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    max_new_tokens=min(settings.most, self.max_length - room),
                    do_sample=False,
                    eos_token_id=end,
                    pad_token_id=pad,
                    **({"num_beams": 1} | more),
                ),
                logits_processor=[Numbers(), *self._draws(jobs, settings)],
                stopping_criteria=[Stop(self.tokenizer, settings.until, longest)] if settings.until else None,
                tokenizer=self.tokenizer,
            )
        new = [_before(row, set(end)) for row in out[:, longest:].tolist()]
        return [self._text(prompt, row, settings.until) for prompt, row in zip(prompts, new, strict=True)]

    def _draws(self, jobs: Sequence[tuple[str, int]], settings: Settings) -> list[Draw]:
        """Return the processor that draws tokens; none for greedy decoding."""
        if not settings.temperature:
            return []
        seeds = [row_seed(self._seed, text, number) for text, number in jobs]
        return [Draw(seeds, settings.temperature, json.loads(settings.more))]

    def _ends(self) -> list[int]:
        """Return the tokens that end a text: the tokenizer's, the chat turn's and the model's generation settings'."""
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        more = configured if isinstance(configured, list) else [configured]
        turn = None if self._chat is None else self._chat.end(self.tokenizer)
        named = [self.tokenizer.convert_tokens_to_ids(one) if isinstance(one, str) else one for one in more]
        return sorted({token for token in [self.tokenizer.eos_token_id, turn, *named] if token is not None})

    def _told(self, task: str, given: dict[str, Any]) -> Settings:
        """Return how a task's prompts are continued, and keep it for the record."""
        rules = normalize_gen_kwargs(given)
        most, until = int(rules.pop("max_gen_toks")), tuple(stop for stop in rules.pop("until") if stop)
        drawn, mode = bool(rules.pop("do_sample", False)), MODEL if task in self._follow else NEUTRAL
        temperature = float(rules.pop("temperature", 0) or 1.0) if drawn else 0.0
        models = own(self.model.generation_config, drawn=drawn)
        if mode == MODEL and drawn:
            rules = {"top_k": STOCK_TOP_K} | models | rules
        elif mode == MODEL:
            rules = models | rules
        more = effective(rules, drawn=drawn)
        if drawn and more.get("num_beams"):
            raise RequestError(
                f"{task}: num_beams={more['num_beams']} in the generation settings, and answers that are drawn: beams "
                "are not drawn; set eval.temperature=0, or eval.decoding=neutral"
            )
        self.decoded[task] = {
            "decoding": mode,
            "temperature": temperature,
            "settings": more,
            "of_the_model": models,
            "max_new_tokens": most,
            "until": list(until),
            "ends": self.tokenizer.convert_ids_to_tokens(self._ends()),
        }
        return Settings(
            most=most, until=until, temperature=temperature, more=json.dumps(more, sort_keys=True)
        )

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return messages as text, as training has them."""
        assert self._chat is not None
        return self._chat.render(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _text(self, prompt: list[int], new: list[int], until: tuple[str, ...]) -> str:
        """Decode new tokens together with their prompt, and cut at the first stop string."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        before = self.tokenizer.decode(prompt, **options)
        whole = self.tokenizer.decode(prompt + new, **options)
        joined = whole.startswith(before)
        text: str = whole[len(before) :] if joined else self.tokenizer.decode(new, **options)
        for stop in until:
            text = text.split(stop, 1)[0]
        return text


def _neutral(model: Any) -> Any:
    """Let nothing be inherited from a model's own generation settings."""
    return mock.patch.object(model, "generation_config", GenerationConfig())


@contextlib.contextmanager
def _applying(more: Mapping[str, Any]) -> Iterator[None]:
    """Name the generation settings where transformers does not get along with them.

    Raises:
        RequestError: it fails, and there are some.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, IndexError) as error:
        if not more:
            raise
        asked, why = (
            ", ".join(f"{name}={value}" for name, value in more.items()),
            first_line(error).rstrip("."),
        )
        raise RequestError(
            f"answers cannot be made with the generation settings {asked}: {why}. Set "
            "eval.decoding=neutral, which leaves the model's own out, or change them in its generation_config.json "
            "(or in the task's file)."
        ) from error


def _before(row: list[int], ends: set[int]) -> list[int]:
    """Return a row up to its first end token."""
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
