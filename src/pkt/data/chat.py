"""Prompts as messages in a tokenizer's own chat template, at a time that the request sets, and the end of a reply.

A template may ask for the time (Llama 3's prints the date), so the same request would have other prompts tomorrow,
under the same key. Every template is therefore given `model.chat_time` instead of the clock.

A reply ends in the token that the template writes behind it (``<|im_end|>``, ``<end_of_turn>``), which need not be EOS:
training trains this token, and generation stops at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pkt.data.conversation import folded, messages_of
from pkt.errors import RequestError, first_line

VERSION = 3  # raised when prompts or their replies' ends become other tokens; part of keys of scores
Turns = Sequence[dict[str, Any]]
HEARD = f"Zebra4 {'and so on ' * 50}Zebra5"  # long: a template may write the beginning of a message alone
ASKED, REPLY = "Zebra6", "Zebra7"  # stand for a question and its reply, and in no template


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Renders prompts in the chat template of a tokenizer.

    Attributes:
        time: the time for templates that ask for it.
    """

    time: datetime
    _heard: dict[tuple[str, Any], bool] = field(default_factory=dict, init=False, compare=False, repr=False)

    def prompt(self, tokenizer: Any, text: str) -> str:
        """Return a prompt, a user's message or several messages, up to where the reply begins."""
        return self.render(tokenizer, messages_of(text), add_generation_prompt=True)

    def render(self, tokenizer: Any, messages: Sequence[dict[str, str]], **options: Any) -> str:
        """Return messages as text; a template without the system's role gets its words above the first question.

        Such templates raise, or pass over what it says.

        Args:
            tokenizer: has the template.
            messages: with ``role`` and ``content``.
            options: of transformers' `apply_chat_template`.

        Raises:
            RequestError: the template takes no such conversation.
        """
        told = [one["content"].strip() for one in messages[:1] if one["role"] == "system"]
        if not told:
            return self._written(tokenizer, messages, options)
        text = None
        with suppress(RequestError):
            text = self._written(tokenizer, messages, options)
        heard = text is not None and told[0] in text
        return str(text) if heard else self._written(tokenizer, folded(messages), options)

    def _written(self, tokenizer: Any, messages: Sequence[dict[str, str]], options: dict[str, Any]) -> str:
        """Return messages as the template writes them, their contents as texts or, if it hears no others, as parts."""
        if self._hears(tokenizer, _plain):
            return self._rendered(tokenizer, messages, options)
        if self._hears(tokenizer, _in_parts):
            return self._rendered(tokenizer, _in_parts(messages), options)
        self._rendered(tokenizer, messages, options)  # a template that takes no such message says why
        raise RequestError(
            "the tokenizer's chat template does not write what the user says, so that all prompts would read alike. "
            "Set model.chat_template=false, or give the tokenizer another template."
        )

    def _hears(self, tokenizer: Any, form: Callable[[Turns], Any]) -> bool:
        """Return whether the template writes all that a user says."""
        known = (str(tokenizer.chat_template), form)
        if known not in self._heard:
            try:
                text = self._rendered(tokenizer, form([{"role": "user", "content": HEARD}]), {})
            except RequestError:
                self._heard[known] = False
            else:
                heard = " ".join(HEARD.lower().split()) in " ".join(text.lower().split())
                as_python = "'type': 'text'" in text  # a list of parts, written as Python has it
                self._heard[known] = heard and not as_python
        return self._heard[known]

    def _rendered(self, tokenizer: Any, messages: Turns, options: dict[str, Any]) -> str:
        try:
            with self.clock():
                text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        except Exception as error:  # a template is a program of somebody's: a division, a key, a recursion
            roles = ", ".join(message["role"] for message in messages)
            raise RequestError(
                f"the tokenizer's chat template does not take a conversation of {roles}: {first_line(error)}. Set "
                "model.chat_template=false, or give the tokenizer another template."
            ) from error
        return text

    def end(self, tokenizer: Any) -> int:
        """Return the token that ends a reply: the special token that the template writes behind it, or else EOS."""
        said = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": REPLY}]
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        for messages in (said, [*said, said[0]]):  # some templates refuse to end with a reply
            try:
                before, found, behind = self.render(tokenizer, messages).partition(REPLY)
            except RequestError:
                continue
            if not found:
                continue
            ids: list[int] = tokenizer(behind.lstrip(), add_special_tokens=False)["input_ids"]
            marks = [token for token in ids if token in special]
            # a template that always asks for the next reply writes what opens one, without any end before it
            opens = behind.strip() == before.rpartition(ASKED)[2].strip() and len(marks) < 2
            return ids[0] if marks[:1] == ids[:1] != [] and not opens else int(tokenizer.eos_token_id)
        return int(tokenizer.eos_token_id)

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Make `strftime_now` of chat templates return this time; transformers takes no clock as an argument."""
        from transformers.utils import chat_template_utils

        stopped = SimpleNamespace(now=lambda: self.time)
        with mock.patch.object(chat_template_utils, "datetime", stopped):
            yield


def _plain(messages: Turns) -> Turns:
    return messages


def _in_parts(messages: Turns) -> Turns:
    """Return messages whose contents are lists of parts, as templates of models that also see want them."""
    return [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages]
