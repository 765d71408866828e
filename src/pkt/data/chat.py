"""Prompts as messages in a tokenizer's own chat template, at a time that the request sets.

A template may ask for the time (Llama 3's prints the date), so the same request would have other prompts tomorrow,
under the same key. Every template is therefore given `model.chat_time` instead of the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Renders prompts in the chat template of a tokenizer.

    Attributes:
        time: the time for templates that ask for it.
    """

    time: datetime

    def prompt(self, tokenizer: Any, text: str) -> str:
        """Return a prompt as a user's message, up to where the reply begins."""
        return self.render(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)

    def render(self, tokenizer: Any, messages: Sequence[dict[str, str]], **options: Any) -> str:
        """Return messages as text.

        Args:
            tokenizer: has the template.
            messages: with ``role`` and ``content``.
            options: of transformers' `apply_chat_template`.
        """
        with self.clock():
            text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        return text

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Make `strftime_now` of chat templates return this time; transformers takes no clock as an argument."""
        from transformers.utils import chat_template_utils

        stopped = SimpleNamespace(now=lambda: self.time)
        with mock.patch.object(chat_template_utils, "datetime", stopped):
            yield
