"""Which rows of a large set are short enough to train on, before any are drawn.

Sets that somebody else has made hold rows of all lengths; those beyond the models' context are left out and counted,
so that a split still has the size asked for. Rows that the user or pkt has made are refused instead (`encode`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pkt.data.chat import Chat
from pkt.data.encoding import encode_answers, encode_prompt

Row = dict[str, Any]
MARGIN = 8  # tokens that a tokenizer may add to a row: BOS, EOS, a leading space


@dataclass(kw_only=True)
class Fitting:
    """Leaves out rows that are too long.

    Attributes:
        tokenizer: gives the tokenizer; asked for where a row may be too long.
        max_length: tokens that prompt, answer and EOS may have.
        chat: wraps prompts in the tokenizer's chat template; None: they stay as they are.
        dropped: name of a pool of rows -> how many were left out of how many; only pools where some were.
    """

    tokenizer: Callable[[], Any]
    max_length: int
    chat: Chat | None = None
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    _known: dict[tuple[str, str], bool] = field(default_factory=dict, init=False)

    def kept(self, pool: str, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of a pool that fit, in order, and count the others."""
        left = [row for row in rows if self._fits(row)]
        if len(left) < len(rows):
            self.dropped[pool] = (len(rows) - len(left), len(rows))
        return left

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
        """What wraps prompts; None also where the tokenizer has no template, which `encode` refuses."""
        return self.chat if self.chat is not None and self._loaded.chat_template else None

    @cached_property
    def _loaded(self) -> Any:
        return self.tokenizer()

    @cached_property
    def _overhead(self) -> int:
        """Tokens beyond those of prompt and answer, at most."""
        if self._chat is None:
            return MARGIN
        return len(encode_prompt(self._loaded, self._chat.prompt(self._loaded, ""))) + 2 * MARGIN
