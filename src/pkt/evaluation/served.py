"""A model that vLLM loads and runs, which answers what `asking` asks; an option where there is a GPU that it supports.

    Served (folder or name on the hub) -> vllm.LLM -> prompt log-probabilities | continuations

Greedy answers and log-likelihoods are those of transformers up to float error; draws have seeds of their own and are
others. vLLM is not among pkt's dependencies: pip install vllm.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM

from pkt.data.chat import Chat
from pkt.errors import PktError, RequestError, first_line
from pkt.evaluation.asking import Asking, Hits, Settings
from pkt.evaluation.engines import Served
from pkt.evaluation.sampling import row_seed
from pkt.late import torch
from pkt.processes import ALONE, Processes

# transformers' names of generation settings -> vLLM's
NAMES = {
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "min_new_tokens": "min_tokens",
}
SPARE = 2  # positions of the context: of the last token of a scored answer, and of the one that vLLM always writes


class VllmScorer(Asking, TemplateLM):  # type: ignore[misc]
    """The model that lm-eval sends its requests to, run by vLLM."""

    def __init__(
        self,
        served: Served,
        tokenizer: Any,
        *,
        batch_size: int,
        seed: int = 0,
        chat: Chat | None = None,
        follow: Collection[str] = (),
        processes: Processes = ALONE,
    ) -> None:
        """Start the engine; arguments as of `pkt.evaluation.scorer.Scorer`.

        Raises:
            PktError: vLLM cannot run the model.
        """
        super().__init__()
        self.tokenizer, self.batch_size = tokenizer, batch_size
        self._llm = _started(served, seed)
        self.max_length = int(self._llm.llm_engine.model_config.max_model_len) - SPARE
        self.begin(
            seed=seed,
            chat=chat,
            follow=follow,
            processes=processes,
            generation=served.generation,
            vocabulary=served.vocabulary,
        )

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """The name of the tokenizer, for lm-eval's record."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the template, for lm-eval's record."""
        return str(getattr(self.tokenizer, "chat_template", "") or "")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Tokenise a text."""
        return list(self.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens)))

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Refuse perplexities of whole texts."""
        raise RequestError(
            "eval.backend=vllm scores answers, and this task of lm-eval's scores whole texts: set eval.backend=hf"
        )

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise NotImplementedError("`loglikelihood` tokenises itself")

    def _score(
        self,
        batch: list[tuple[int, ...]],
        jobs: dict[tuple[int, ...], list[tuple[str, str]]],
        continuations: dict[tuple[str, str], list[int]],
    ) -> None:
        """Score one batch by the log-probabilities of its prompts."""
        asked = [(ids, pair) for ids in batch for pair in jobs[ids]]
        rows = [[*ids, continuations[pair][-1]] for ids, pair in asked]
        how = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1, "detokenize": False}
        for (_, pair), row, output in zip(asked, rows, self._run(rows, [how] * len(rows)), strict=True):
            count = len(continuations[pair])
            # the likeliest token and the row's own at every position
            of_answer = zip(row[-count:], output.prompt_logprobs[-count:], strict=True)
            said = [known[token] for token, known in of_answer]
            total = torch.tensor([own.logprob for own in said], dtype=torch.float64)
            if bool(total.isnan().any()):
                raise PktError(
                    "the model's log-probabilities are not numbers: load it in bfloat16 or float32"
                )
            right = sum(own.rank == 1 for own in said)
            self.hits[pair] = Hits(loglikelihood=float(total.sum()), tokens=count, right=right)

    def _generate(
        self, prompts: list[list[int]], jobs: Sequence[tuple[str, int]], settings: Settings
    ) -> list[str]:
        """Continue a batch; a prompt that leaves no room for the new tokens is cut."""
        prompts = self.read(prompts, jobs, settings.most)
        how = self._how(settings) | {"max_tokens": self.allowance(prompts[0], settings.most)}
        seeds = [row_seed(self._seed, text, number) for text, number in jobs]
        drawn = [{"seed": seed} if settings.temperature else {} for seed in seeds]
        outputs = self._run(prompts, [how | own for own in drawn])
        return self.said(prompts, [list(output.outputs[0].token_ids) for output in outputs], settings)

    def _how(self, settings: Settings) -> dict[str, Any]:
        """Return vLLM's sampling parameters.

        Raises:
            RequestError: generation settings that it does not have.
        """
        more = json.loads(settings.more)
        if unknown := sorted(more.keys() - NAMES.keys()):
            raise RequestError(
                f"eval.backend=vllm has no {', '.join(unknown)}, which the generation settings ask for: set "
                "eval.decoding=neutral, which leaves the model's own out, or eval.backend=hf"
            )
        return {
            "temperature": settings.temperature,
            "stop": list(settings.until),
            "include_stop_str_in_output": True,  # the text is cut where all engines' is
            "stop_token_ids": self._ends(),
            "skip_special_tokens": False,
        } | {NAMES[name]: value for name, value in more.items()}

    def _run(self, rows: Sequence[list[int]], how: Sequence[Mapping[str, Any]]) -> list[Any]:
        from vllm import SamplingParams, TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=list(ids)) for ids in rows]
        found: list[Any] = self._llm.generate(prompts, [SamplingParams(**own) for own in how], use_tqdm=False)
        return found


def _started(served: Served, seed: int) -> Any:
    """Return the engine with the model in it."""
    from vllm import LLM

    chosen = {
        "dtype": served.dtype,
        "seed": seed % 2**31,
        "generation_config": "vllm",  # settings in the model's folder are pkt's to apply
        **({} if served.context == sys.maxsize else {"max_model_len": served.context}),
        **served.arguments,
    }
    # nobody's to choose
    given = {"model": served.where, "revision": served.revision, "trust_remote_code": False}
    try:
        return LLM(**{**chosen, **given})
    except (ValueError, RuntimeError, OSError, NotImplementedError, TypeError) as error:
        raise PktError(
            f"vLLM cannot run {served.where}: {first_line(error)}; set eval.backend=hf (answer.backend=hf), or its "
            "own arguments (vllm.<name>=...)"
        ) from error
