"""What lm-eval asks of a model, tokenised as training does and cut into batches, whichever engine runs the model.

    requests -> tokens as in training -> batches by length -> an engine: log-likelihoods | continuations

Differences from lm-eval's own models: prompt and answer are tokenised separately, as in training, so that a model is
scored on the tokens that it learnt; draws do not depend on the other rows of a batch; new text is decoded together with
its prompt, because some tokenizers drop a leading space otherwise. A prompt that is too long is cut on the left, as in
lm-eval, and is recorded.
"""

from __future__ import annotations

import itertools
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from pkt.data.chat import Chat
from pkt.data.conversation import unpacked
from pkt.data.encoding import before_text, encode_answers, encode_prompt
from pkt.errors import RequestError
from pkt.evaluation.decoding import DRAWING, MODEL, NEUTRAL, STOCK_TOP_K, effective, own
from pkt.processes import Processes
from pkt.progress import Track, untracked

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


class Asking:
    """The part of a model of lm-eval's that knows no engine.

    `hits` maps (context, continuation) to `Hits`; `cut` holds the contexts that were cut on the left; `decoded` says
    how the answers of each lm-eval task were made. A subclass is a model of lm-eval's too, with a tokenizer, a
    `max_length` and a `batch_size`.
    """

    tokenizer: Any
    max_length: int
    batch_size: Any
    track: Track = staticmethod(untracked)  # shows how far it is

    def begin(
        self,
        *,
        seed: int,
        chat: Chat | None,
        follow: Collection[str],
        processes: Processes,
        generation: Any,
        vocabulary: int,
    ) -> None:
        """Take what every engine has.

        Args:
            seed: of draws.
            chat: the chat template, if prompts are put into it.
            follow: lm-eval tasks whose answers are made by the model's own generation settings.
            processes: who runs it: each a part of the batches, and all of them know every answer.
            generation: the model's own generation settings.
            vocabulary: rows of its head.
        """
        self.hits: dict[tuple[str, str], Hits] = {}
        self.cut: set[str] = set()
        self.decoded: dict[str, dict[str, Any]] = {}
        self._seed, self._chat, self._follow = seed, chat, frozenset(follow)
        self._processes, self._generation, self._vocabulary = processes, generation, vocabulary
        self._named = 1 + max(self.tokenizer.get_vocab().values())

    @abstractmethod
    def _score(
        self,
        batch: list[tuple[int, ...]],
        jobs: dict[tuple[int, ...], list[tuple[str, str]]],
        continuations: dict[tuple[str, str], list[int]],
    ) -> None:
        """Fill `hits` for who asks about the inputs of a batch; an input lacks the answer's last token."""

    @abstractmethod
    def _generate(
        self, prompts: list[list[int]], jobs: Sequence[tuple[str, int]], settings: Settings
    ) -> list[str]:
        """Continue a batch of prompts; a job is a text and the number of its draw."""

    def encode_prompts(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Tokenise prompts as training does; an empty prompt becomes what stands before a text."""
        encoded = {text: encode_prompt(self.tokenizer, text) for text in dict.fromkeys(texts)}
        return {text: ids or [before_text(self.tokenizer)] for text, ids in encoded.items()}

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-likelihood, whether greedy decoding gives it) per request, and fill `hits`."""
        pairs = [tuple(request.args) for request in requests]
        prompts = self.encode_prompts([context for context, _ in pairs])
        different = list(dict.fromkeys(pairs))
        contexts, texts = zip(*different, strict=True) if different else ((), ())
        continuations = dict(zip(different, encode_answers(self.tokenizer, texts, contexts), strict=True))
        jobs: dict[tuple[int, ...], list[tuple[str, str]]] = {}  # what the model reads -> who asks
        for (context, continuation), answer in continuations.items():
            if len(answer) > self.max_length:
                raise RequestError(
                    f"an answer to be scored has {len(answer)} tokens, the model's context holds {self.max_length}: "
                    f"choose another task or a model with a longer context. It begins {continuation[:60]!r}"
                )
            ids = self._fitting(context, prompts[context], self.max_length + 1 - len(answer)) + answer
            jobs.setdefault(tuple(ids[:-1]), []).append((context, continuation))
        own = self._processes.own(list(self._batches(list(jobs))))
        with self.track("answers to score", sum(map(len, own))) as advance:
            for batch in own:
                self._score(batch, jobs, continuations)
                advance(len(batch))
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
            own = self._processes.own(list(self._parts(order, prompts, settings)))
            with self.track("answers to generate", sum(map(len, own))) as advance:
                for part in own:
                    outputs = self._generate([prompts[text] for text, _ in part], part, settings)
                    done |= {
                        (text, settings, number): out
                        for (text, number), out in zip(part, outputs, strict=True)
                    }
                    advance(len(part))
        for done_by_one in self._processes.joined(done):
            done |= done_by_one
        return [done[job] for job in asked]

    def _parts(
        self, order: Sequence[tuple[str, int]], prompts: Mapping[str, list[int]], settings: Settings
    ) -> Iterator[list[tuple[str, int]]]:
        """Cut jobs, longest first, into batches, each of as many new tokens for all of its prompts.

        Where padding would count as text, a batch has prompts of one length: transformers' penalties, least lengths and
        n-grams read the padding too, so an answer would depend on the rows beside it.
        """
        size = int(self.batch_size)

        def alike(job: tuple[str, int]) -> int:
            prompt = prompts[job[0]]
            return len(prompt) if settings.read_the_prompt() else self.allowance(prompt, settings.most)

        for some in (list(jobs) for _, jobs in itertools.groupby(order, alike)):
            yield from (some[start : start + size] for start in range(0, len(some), size))

    def room(self, most: int) -> int:
        """Return how many tokens of a prompt are read where `most` new ones are asked for.

        As in lm-eval all that they leave. If they would leave less than half of the context (lm-eval refuses to leave
        nothing), the number says little about this model, and a prompt is cut where an eighth would not be left.
        """
        rest = self.max_length - most
        return int(rest if rest >= self.max_length // 2 else self.max_length - max(1, self.max_length // 8))

    def allowance(self, prompt: Sequence[int], most: int) -> int:
        """Return how many new tokens a prompt gets: as many as are asked for, or as its context still holds."""
        return int(min(most, self.max_length - min(len(prompt), self.room(most))))

    def _ends(self) -> list[int]:
        """Return the tokens that end a text: the tokenizer's, the chat turn's and the model's generation settings'."""
        configured = getattr(self._generation, "eos_token_id", None)
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
        models = own(self._generation, drawn=drawn)
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
            unpacked(chat_history),
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

    def read(self, prompts: list[list[int]], jobs: Sequence[tuple[str, int]], most: int) -> list[list[int]]:
        """Return prompts as far as they leave room for `most` new tokens (see `room`)."""
        room = self.room(most)
        return [self._fitting(text, ids, room) for (text, _), ids in zip(jobs, prompts, strict=True)]

    def said(self, prompts: list[list[int]], new: list[list[int]], settings: Settings) -> list[str]:
        """Return the texts of new tokens, up to an end token or a stop string; a head's padding rows have none."""
        ends = set(self._ends())
        rows = zip(prompts, (_before(row, ends) for row in new), strict=True)
        return [
            self._text(prompt, [token for token in row if token < self._named], settings.until)
            for prompt, row in rows
        ]


def _before(row: list[int], ends: set[int]) -> list[int]:
    """Return a row up to its first end token."""
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
