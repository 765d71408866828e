"""What a row of somebody's file says: which of its columns are the prompt, and which the answer.

    row ── data.columns ──> row with the names below ── the first shape whose columns it has ──> prompt, answer, id

Pure functions of one row. What reads the file is `pkt.data.sources`, what becomes of the texts `pkt.data.encoding`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pkt.data.conversation import BREAK, packed
from pkt.data.files import fault
from pkt.errors import RequestError, nearest

LAST = "last"  # of `data.supervise`: the last reply of a conversation alone
_SPEAKERS = {"human": "user", "gpt": "assistant"}
SHOWN = 12  # columns in a message
TOLD = (
    "a row has prompt and answer (or completion), messages (or conversations), instruction and output "
    "(and perhaps input), or text alone; other names: data.columns={prompt: <its column>, answer: <its column>}"
)


Texts = Sequence[tuple[str, str]]
"""Prompt and answer, of each reply of a conversation."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A way in which people write rows.

    Attributes:
        columns: that a row of this shape has.
        texts: returns prompt and answer of such a row, of a conversation those of each reply; `where` names it in
            messages, and `chat` says whether a chat template takes what each role says.
        more: columns that it may have.
    """

    columns: tuple[str, ...]
    texts: Callable[[Mapping[str, Any], str, bool], Texts]
    more: tuple[str, ...] = ()


def _answered(row: Mapping[str, Any], where: str, _: bool) -> Texts:
    return [(_text(row, "prompt", where), _text(row, "answer", where))]


def _completed(row: Mapping[str, Any], where: str, chat: bool) -> Texts:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation([*prompt, *completion], f"{where}: 'prompt' and 'completion'", chat)
    return [(_text(row, "prompt", where), _text(row, "completion", where))]


def _said(row: Mapping[str, Any], where: str, chat: bool) -> Texts:
    return _conversation(row["messages"], f"{where}: 'messages'", chat)


def _shared(row: Mapping[str, Any], where: str, chat: bool) -> Texts:
    return _conversation(row["conversations"], f"{where}: 'conversations'", chat)


def _instructed(row: Mapping[str, Any], where: str, _: bool) -> Texts:
    return [(instruction(row, where), _text(row, "output", where))]


def _plain(row: Mapping[str, Any], where: str, _: bool) -> Texts:
    return [("", _text(row, "text", where))]


SHAPES = (
    Shape(columns=("prompt", "answer"), texts=_answered),
    Shape(columns=("prompt", "completion"), texts=_completed),
    Shape(columns=("messages",), texts=_said),
    Shape(columns=("conversations",), texts=_shared),
    Shape(columns=("instruction", "output"), texts=_instructed, more=("input",)),
    Shape(columns=("text",), texts=_plain),
)
NAMES = tuple(dict.fromkeys(name for shape in SHAPES for name in (*shape.columns, *shape.more)))
"""The columns that say prompt and answer, by the names that shapes have for them."""


def labelled(
    row: Mapping[str, Any], where: str, supervise: str = LAST, *, chat: bool = False
) -> list[dict[str, str]]:
    """Return prompt, answer and id of a row; of a conversation, a row for each of its replies if all are supervised.

    Rows of one conversation say so (``conversation``), as they share what was said before.

    Args:
        row: with the names of a shape.
        where: names it in messages.
        supervise: the ``last`` reply of a conversation, or ``all``.
        chat: prompts are put into a chat template.

    Raises:
        RequestError: it has no shape, a part of it is no text, or it has turns that only a chat template tells apart.
    """
    shape = next((own for own in SHAPES if all(row.get(name) is not None for name in own.columns)), None)
    if shape is None:
        raise RequestError(f"{where}: {_lacking(row)}")
    texts = shape.texts(row, where, chat)
    chosen = list(texts)[-1:] if supervise == LAST else list(texts)
    rows = [_named(row, where, {"prompt": prompt, "answer": answer}) for prompt, answer in chosen]
    if len(rows) == 1:
        return rows
    whole = {"conversation": rows[-1]["id"]}  # of an id that stands for the content, that of all turns
    if row.get("id") is None:
        return [one | whole for one in rows]
    return [one | whole | {"id": f"{one['id']}/{number}"} for number, one in enumerate(rows, 1)]


def asked(row: Mapping[str, Any], where: str, more: Sequence[str]) -> list[dict[str, str]]:
    """Return prompt and id of a row, and other texts that it may have; its answer is not looked at.

    Args:
        row: with a ``prompt``, or an ``instruction`` and perhaps an ``input``.
        where: names it in messages.
        more: the other texts.

    Raises:
        RequestError: it has no prompt, or one of them is no text.
    """
    if row.get("prompt") is not None:
        prompt = _text(row, "prompt", where)
    elif row.get("instruction") is not None:
        prompt = instruction(row, where)
    else:
        raise RequestError(
            f"{where}: 'prompt' is missing{nearest('prompt', row)}; a row needs prompt (or instruction, and perhaps "
            f"input), or data.columns={{prompt: <its column>}}. This one has {_names(row)}."
        )
    texts = {name: _text(row, name, where) for name in more if row.get(name) is not None}
    return [_named(row, where, {"prompt": prompt, **texts})]


def instruction(row: Mapping[str, Any], where: str) -> str:
    """Return an instruction and, below it, the input that it is about."""
    told = _text(row, "instruction", where)
    return f"{told}{BREAK}{row['input']}" if row.get("input") and _text(row, "input", where) else told


def renamed(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return a row with the columns that `data.columns` names under pkt's names; a file may have pkt's already.

    Raises:
        RequestError: it has neither.
    """
    lacking = next((theirs for own, theirs in columns.items() if theirs not in row and own not in row), None)
    if lacking is not None:
        raise RequestError(f"{where}: no column '{lacking}', which data.columns names; it has {_names(row)}.")
    return {**row, **{own: row[theirs] for own, theirs in columns.items() if theirs in row}}


def _named(row: Mapping[str, Any], where: str, found: dict[str, str]) -> dict[str, str]:
    """Return a row with its id: its own, or one made of its content."""
    given = row.get("id")
    if given is None:
        content = json.dumps(found, sort_keys=True).encode()
        return found | {"id": hashlib.sha256(content).hexdigest()[:12]}
    whole = isinstance(given, int) and not isinstance(given, bool)
    return found | {"id": str(given) if whole else _text(row, "id", where)}


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row[name]
    if wrong := fault(value):
        raise RequestError(f"{where}: '{name}' {wrong}.")
    if not value:
        raise RequestError(f"{where}: '{name}' is empty.")
    return str(value)


def _conversation(messages: Any, what: str, chat: bool) -> Texts:
    """Return question and reply, for every reply.

    For a chat template a question has with it, role by role, all that was said before (`pkt.data.conversation`).
    Without one, what the system says stands above the question.
    """
    messages = _in_roles(messages)
    known = isinstance(messages, list) and all(
        isinstance(one, dict) and {"role", "content"} <= one.keys() for one in messages
    )
    if not known:
        raise RequestError(
            f"{what}: a list of objects with role and content (or from and value) is expected."
        )
    roles = [str(one["role"]) for one in messages]
    told = roles[:1] == ["system"]
    turns = roles[told:]
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        raise RequestError(
            f"{what}: a conversation of {', '.join(roles) or 'nothing'}; user and assistant in turn are expected, the "
            "last an assistant, and perhaps system before them."
        )
    if len(turns) > 2 and not chat:
        raise RequestError(
            f"{what}: a conversation of several turns, which needs a chat template: set model.chat_template=true "
            "(models with a template), or cut the conversations into rows of one question and its reply."
        )
    texts = [_text(one, "content", f"{what}, {one['role']}") for one in messages]
    replies = range(told + 1, len(texts), 2)
    return [(packed(messages[:end]) if chat else BREAK.join(texts[:end]), texts[end]) for end in replies]


def _in_roles(messages: Any) -> Any:
    """Return messages with ``role`` and ``content``, also those that ShareGPT's way has as ``from`` and ``value``."""
    whole = isinstance(messages, list) and all(isinstance(one, dict) for one in messages)
    if not whole or not all({"from", "value"} <= one.keys() for one in messages):
        return messages
    return [
        {"role": _SPEAKERS.get(str(one["from"]), one["from"]), "content": one["value"]} for one in messages
    ]


def _lacking(row: Mapping[str, Any]) -> str:
    """Say what a row without a shape lacks: the other half of one that it begins, or all of it."""
    named = (shape for shape in SHAPES if all(name in row for name in shape.columns))
    begun = (shape for shape in SHAPES if any(row.get(name) is not None for name in shape.columns))
    shape = next(named, None) or next(begun, SHAPES[0])
    name = next(name for name in shape.columns if row.get(name) is None)
    fault_ = "is null" if name in row else f"is missing{nearest(name, row)}"
    return f"'{name}' {fault_}; {TOLD}. This one has {_names(row)}."


def _names(row: Mapping[str, Any]) -> str:
    """Return the columns of a row, the first ones of many."""
    names = [str(name) for name in row]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}" if names else "nothing"
