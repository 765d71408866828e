"""lm-eval's Hugging Face model, which answers what `asking` asks.

Logits are computed at the answer's positions only.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from lm_eval.models.huggingface import HFLM
from transformers import GenerationConfig

from pkt.data.chat import Chat
from pkt.errors import RequestError, first_line
from pkt.evaluation.asking import Asking, Hits, Settings
from pkt.evaluation.criteria import Numbers, Stop, check_numbers
from pkt.evaluation.decoding import DRAWING
from pkt.evaluation.drawing import Draw
from pkt.evaluation.sampling import row_seed
from pkt.late import torch
from pkt.models.behaviour import distance
from pkt.models.outline import known_context
from pkt.processes import ALONE, Processes

TRIED, PADDING = 4, 64  # tokens of a text, and of padding before it, with which it is tried
# relative difference of logits; rounding gives less in every dtype, padding that is read about 1
PADDED = 0.05


class Scorer(Asking, HFLM):  # type: ignore[misc]
    """The model that lm-eval sends its requests to, run by transformers."""

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
        # lm-eval ties head and embedding of a model whose config says so, also where its weights are apart
        with mock.patch.object(model, "tie_weights"):
            super().__init__(
                pretrained=model,
                tokenizer=tokenizer,
                backend="causal",
                batch_size=batch_size,
                max_length=known_context(getattr(model.config, "text_config", None) or model.config),
            )
        self.begin(
            seed=seed,
            chat=chat,
            follow=follow,
            processes=processes,
            generation=model.generation_config,
            vocabulary=int(model.get_output_embeddings().weight.shape[0]),
        )
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        pad, rows = self.tokenizer.pad_token_id, int(model.get_input_embeddings().weight.shape[0])
        self._pad = pad if pad < rows else 0  # a row that has ended is filled with it, and read on
        self._pads: bool | None = None

    def _score(
        self,
        batch: list[tuple[int, ...]],
        jobs: dict[tuple[int, ...], list[tuple[str, str]]],
        continuations: dict[tuple[str, str], list[int]],
    ) -> None:
        """Score one batch: padding on the right needs no mask in a causal model."""
        asked = [(row, pair) for row, ids in enumerate(batch) for pair in jobs[ids]]
        answers = [continuations[pair] for _, pair in asked]
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

    @torch.inference_mode()
    def _generate(
        self, prompts: list[list[int]], jobs: Sequence[tuple[str, int]], settings: Settings
    ) -> list[str]:
        """Continue a batch, padded on the left; a prompt that leaves no room for the new tokens is cut."""
        prompts = self.read(prompts, jobs, settings.most)
        if len(lengths := sorted({*map(len, prompts)})) > 1 and not self._takes_padding(prompts):
            return self._one_length_at_a_time(prompts, jobs, settings, lengths)
        longest = max(map(len, prompts))
        pad, end = self._pad, self._ends()
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
                    max_new_tokens=self.allowance(prompts[0], settings.most),  # of all in the batch
                    do_sample=False,
                    eos_token_id=end,
                    pad_token_id=pad,
                    **({"num_beams": 1} | more),
                ),
                logits_processor=[Numbers(), *self._draws(jobs, settings)],
                stopping_criteria=[Stop(self.tokenizer, settings.until, longest)] if settings.until else None,
                tokenizer=self.tokenizer,
            )
        return self.said(prompts, out[:, longest:].tolist(), settings)

    def _one_length_at_a_time(
        self,
        prompts: list[list[int]],
        jobs: Sequence[tuple[str, int]],
        settings: Settings,
        lengths: list[int],
    ) -> list[str]:
        found: dict[int, str] = {}
        for length in lengths:
            rows = [row for row, ids in enumerate(prompts) if len(ids) == length]
            own = self._generate([prompts[row] for row in rows], [jobs[row] for row in rows], settings)
            found |= dict(zip(rows, own, strict=True))
        return [found[row] for row in range(len(prompts))]

    @torch.inference_mode()
    def _takes_padding(self, prompts: list[list[int]]) -> bool:
        """Return whether a text is continued alike with padding before it, tried once: a few tokens behind much of it.

        Some families read padding as text, whatever the mask says (recurrent states, convolutions, own positions): an
        answer of theirs would depend on the rows beside it.
        """
        if self._pads is None:
            text = min(prompts, key=len)[-TRIED:]
            padding = [self._pad] * max(1, min(PADDING, self.max_length - len(text) - 1))
            beside, own = (self._next([row], len(text)) for row in ([*padding, *text], text))
            self._pads = distance(beside, own) <= PADDED
        return self._pads

    def _next(self, rows: list[list[int]], real: int) -> torch.Tensor:
        """Return the logits with which `generate` continues a row, of which the last `real` tokens are text."""
        ids = torch.tensor(rows, device=self.device)
        mask = torch.zeros_like(ids)
        mask[:, -real:] = 1
        with _neutral(self.model):
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    max_new_tokens=1,
                    do_sample=False,
                    pad_token_id=self._pad,
                    output_logits=True,
                    return_dict_in_generate=True,
                ),
            )
        logits: torch.Tensor = out.logits[0][0].float()
        return logits

    def _draws(self, jobs: Sequence[tuple[str, int]], settings: Settings) -> list[Draw]:
        """Return the processor that draws tokens; none for greedy decoding."""
        if not settings.temperature:
            return []
        seeds = [row_seed(self._seed, text, number) for text, number in jobs]
        return [Draw(seeds, settings.temperature, json.loads(settings.more))]


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
