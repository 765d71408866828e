"""Leave out rows of a published set that are too long to train on, before any are drawn.

Published sets hold rows of all lengths. Rows beyond the models' context are left out and counted, so that a split still
has the size asked for. Rows of the user's or of pkt's own tasks are refused instead (see `encode`).
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
        tokenizer: returns the tokenizer; called only if a row may be too long.
        max_length: tokens that prompt, answer and EOS may have.
        chat: wraps prompts in the tokenizer's chat template; None: they stay as they are.
        dropped: pool of rows -> (rows left out, all rows), for pools where some were left out.
        scored: the same for rows that are left out because they are scored.
    """

    tokenizer: Callable[[], Any]
    max_length: int
    chat: Chat | None = None
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    scored: dict[str, tuple[int, int]] = field(default_factory=dict)
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
            text = self._chat.prompt(self._loaded, prompt) if self._chat is not None else prompt
            length = (
                len(encode_prompt(self._loaded, text)) + len(encode_answers(self._loaded, [answer])[0]) + 1
            )
            self._known[prompt, answer] = length <= self.max_length
        return self._known[prompt, answer]

    @property
    def _chat(self) -> Chat | None:
        """The chat template; None also where the tokenizer has none, which `encode` refuses."""
        return self.chat if self.chat is not None and self._loaded.chat_template else None

    @cached_property
    def _loaded(self) -> Any:
        return self.tokenizer()

    @cached_property
    def _overhead(self) -> int:
        """The largest number of tokens beyond those of prompt and answer."""
        if self._chat is None:
            return MARGIN
        return len(encode_prompt(self._loaded, self._chat.prompt(self._loaded, ""))) + 2 * MARGIN
