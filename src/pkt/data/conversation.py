"""Conversations as one text, since a prompt is a text everywhere; only chat templates look inside.

[{"role": "user", ...}, {"role": "assistant", ...}, {"role": "user", ...}] <──> MARK + "[{...}, ...]"
                                                     a user's only message <──> what it says
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

BREAK = "\n\n"  # between the parts of a prompt
MARK = "\x1dmessages\x1d"  # ASCII's group separator twice: no prompt of a person begins so

Messages = list[dict[str, str]]


def packed(messages: Sequence[Mapping[str, str]]) -> str:
    """Return messages as one text; equal messages give equal texts, and a user's only one is what it says.

    Args:
        messages: with ``role`` and ``content``, the last of a user.
    """
    if len(messages) == 1:
        return str(messages[0]["content"])
    plain = [{"role": str(one["role"]), "content": str(one["content"])} for one in messages]
    return MARK + json.dumps(plain, ensure_ascii=False)


def is_packed(prompt: str) -> bool:
    """Return whether a prompt stands for several messages."""
    return prompt.startswith(MARK)


def messages_of(prompt: str) -> Messages:
    """Return the messages that a prompt stands for: those that were packed, or the prompt as a user's only one."""
    if is_packed(prompt):
        found: Messages = json.loads(prompt.removeprefix(MARK))
        return found
    return [{"role": "user", "content": prompt}]


def folded(messages: Sequence[Mapping[str, str]]) -> Messages:
    """Return messages in which what the system says stands above the first question, for models without that role."""
    if [one["role"] for one in messages[:2]] != ["system", "user"]:
        return [dict(one) for one in messages]
    told, asked, *later = messages
    return [{**asked, "content": f"{told['content']}{BREAK}{asked['content']}"}, *map(dict, later)]


def unpacked(history: Iterable[Mapping[str, str]]) -> Messages:
    """Return a history of messages in which those that stand for several are written out."""
    return [
        inner
        for one in history
        for inner in (messages_of(one["content"]) if is_packed(one["content"]) else [dict(one)])
    ]
