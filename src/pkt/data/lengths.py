"""Leave out rows of a published set that are too long to train on, before any are drawn.

Published sets hold rows of all lengths. Rows beyond the models' context are left out and counted, so that a split still
has the size asked for. Rows of pkt's own tasks are refused instead (see `encode`), and so are the
user's unless `data.too_long` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pkt.data.chat import Chat
from pkt.data.encoding import encode_answers, encode_prompt
from pkt.data.pools import same

Row = dict[str, Any]
MARGIN = 8  # tokens that a tokenizer may add to a row: BOS, EOS, a leading space


@dataclass(kw_only=True)
class Fitting:
    """Leaves out rows that are too long.

    Attributes:
        tokenizers: returns those of the models; called only if a row may be too long.
        max_length: tokens that prompt, answer and EOS may have.
        chat: wraps prompts in the tokenizer's chat template; None: they stay as they are.
        dropped: pool of rows -> (rows left out, all rows), for pools where some were left out.
        scored: the same for rows that are left out because they are scored.
        beyond: the same for rows of the user's that are more than `data.sizes` says.
    """

    tokenizers: Callable[[], Sequence[Any]]
    max_length: int
    chat: Chat | None = None
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    scored: dict[str, tuple[int, int]] = field(default_factory=dict)
    beyond: dict[str, tuple[int, int]] = field(default_factory=dict)
    _known: dict[tuple[str, str], bool] = field(default_factory=dict, init=False)

    def kept(self, pool: str, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of a pool that fit, in order, and count the others."""
        left = [row for row in rows if self._fits(row)]
        if len(left) < len(rows):
            self.dropped[pool] = (len(rows) - len(left), len(rows))
        return left

    def apart(self, pool: str, rows: Sequence[Row], tested: Collection[str]) -> None:
        """Count the rows of a pool whose question is scored.

        Args:
            pool: its name.
            rows: all that it had, each with its ``question``.
            tested: the questions that are scored, as `same` writes them.
        """
        if count := sum(same(row["question"]) in tested for row in rows):
            self.scored[pool] = (count, len(rows))

    def _fits(self, row: Mapping[str, Any]) -> bool:
        prompt, answer = str(row["prompt"]), str(row["answer"])
        if len((prompt + answer).encode("utf-8", "replace")) + self._overhead <= self.max_length:
            return True  # a token has at least one byte
        if (prompt, answer) not in self._known:  # every split asks again
            lengths = (self._length(tokenizer, prompt, answer) for tokenizer in self._loaded)
            self._known[prompt, answer] = max(lengths) <= self.max_length
        return self._known[prompt, answer]

    def _length(self, tokenizer: Any, prompt: str, answer: str) -> int:
        chat = self._chat(tokenizer)
        text = prompt if chat is None else chat.prompt(tokenizer, prompt)
        return len(encode_prompt(tokenizer, text)) + len(encode_answers(tokenizer, [answer], [prompt])[0]) + 1

    def _chat(self, tokenizer: Any) -> Chat | None:
        """Return the chat template; None also where the tokenizer has none, which `encode` refuses."""
        return self.chat if tokenizer.chat_template else None

    @cached_property
    def _loaded(self) -> Sequence[Any]:
        return self.tokenizers()

    @cached_property
    def _overhead(self) -> int:
        """The largest number of tokens beyond those of prompt and answer."""
        if self.chat is None:
            return MARGIN
        return max(map(self._overhead_of, self._loaded))

    def _overhead_of(self, tokenizer: Any) -> int:
        chat = self._chat(tokenizer)
        return (
            MARGIN if chat is None else len(encode_prompt(tokenizer, chat.prompt(tokenizer, ""))) + 2 * MARGIN
        )
