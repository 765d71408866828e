"""What the tokens of a vocabulary stand for, in bytes, and where in a text each token ends.

    tokenizer -> Spelling ── of ───> bytes of a token, the space before it among them
                          └─ ends ─> text, its tokens -> the byte at which each of them ends

Two tokenizers spell the same text in bytes alone: one writes a space as ``Ġ``, another as ``▁``, a third not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from pkt.data.encoding import LEADS
from pkt.errors import RequestError

UNKNOWN = -1  # of a token that ends inside a character, or where the tokenizer does not say
SPACE = "▁"
FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Return the letter that byte-level BPE writes for each byte (GPT-2's table), the other way round."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How a tokenizer writes texts.

    Attributes:
        tokenizer: with a backend of the `tokenizers` library.
        decoders: names of the steps by which it makes a text of tokens; they say in which form these are.
        added: tokens that stand for themselves, by id.
        special: those of them that stand for no text.
    """

    tokenizer: Any
    decoders: frozenset[str]
    added: Mapping[int, str]
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any, who: str) -> Spelling:
        """Look at a tokenizer; `who` has it.

        Raises:
            RequestError: it has no backend that says which token is where in a text.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise RequestError(
                f"the {who}'s tokenizer ({type(tokenizer).__name__}) does not say where in a text a token ends, so it "
                "cannot be compared with another tokenizer: save it as a fast tokenizer (tokenizer.json), or choose "
                "models with one vocabulary."
            )
        state = {} if backend.decoder is None else json.loads(backend.decoder.__getstate__())
        steps = state.get("decoders", [state]) if state else []
        return cls(
            tokenizer=tokenizer,
            decoders=frozenset(step["type"] for step in steps),
            added={index: token.content for index, token in tokenizer.added_tokens_decoder.items()},
            special=frozenset(tokenizer.all_special_ids),
        )

    @cached_property
    def _names(self) -> dict[int, str]:
        return {index: token for token, index in self.tokenizer.get_vocab().items()}

    def of_token(self, index: int) -> bytes:
        """Return the bytes that a token stands for; those of an added token are its own name.

        Files may list pieces of the vocabulary among the added tokens (runs of spaces): these are spelled as all pieces
        are.
        """
        name = self._names.get(index, "")
        piece = index not in self.special and (
            (self._marks_spaces and SPACE in name)
            or ("ByteFallback" in self.decoders and FALLBACK.fullmatch(name))
        )
        if index in self.added and not piece:
            return self.added[index].encode()
        if "ByteLevel" in self.decoders:
            return bytes(_BYTES[letter] for letter in name if letter in _BYTES)
        if "WordPiece" in self.decoders:
            inside = name.startswith("##")
            return (name[2:] if inside else name if name in self._alone else f" {name}").encode()
        if "ByteFallback" in self.decoders and (found := FALLBACK.fullmatch(name)):
            return bytes([int(found[1], 16)])
        return (name.replace(SPACE, " ") if self._marks_spaces else name).encode()

    @cached_property
    def _alone(self) -> frozenset[str]:
        """Words of one letter that are cut off from their neighbours without a space: punctuation, ideographs."""
        return frozenset(
            name
            for name in self._names.values()
            if len(name) == 1 and name in self.tokenizer.tokenize(f"a{name}a", add_special_tokens=False)[1:]
        )

    @property
    def _marks_spaces(self) -> bool:
        return bool({"Metaspace", "Replace"} & self.decoders)

    def ends(self, text: str, ids: Sequence[int]) -> list[int]:
        """Return for each token of a text the byte behind its last one, or `UNKNOWN`; they never fall.

        Special tokens around the text end where their neighbour before them does, or at 0.

        Args:
            text: what was tokenised.
            ids: its tokens, perhaps with special tokens around them.
        """
        found = self._spelled(text.encode(), ids)
        return found if found is not None else self._told(text, ids)

    def _spelled(self, text: bytes, ids: Sequence[int]) -> list[int] | None:
        """Return the ends if the tokens' bytes, one behind the other, are the text; None where they are not."""
        ends, at = list[int](), 0
        fresh = True  # a tokenizer may put a space here that is not in the text
        for index in ids:
            own = self.of_token(index)
            if text.startswith(own, at):
                at, fresh = at + len(own), index in self.special
            elif index in self.special:
                fresh = True
            elif fresh and own[:1] == b" " and text.startswith(own[1:], at):
                at, fresh = at + len(own) - 1, False
            else:
                return None
            ends.append(at)
        return ends if at == len(text) else None

    def _told(self, text: str, ids: Sequence[int]) -> list[int]:
        """Return the ends as the tokenizer says them, in characters of a text that it may have normalised."""
        for lead in ("", *LEADS):
            read = self.tokenizer(lead + text, add_special_tokens=False, return_offsets_mapping=True)
            own = read["input_ids"]
            spans = [(a - len(lead), b - len(lead)) for a, b in read["offset_mapping"]]
            if lead:  # as answers are tokenised, behind another text
                own, spans = own[-len(ids) :], spans[-len(ids) :]
            start = next((s for s in range(len(ids)) if list(ids[s : s + len(own)]) == own), None)
            if own and start is not None and (not lead or spans[0][1] > 0):
                whole = len(text.encode())
                after = [whole] * (len(ids) - start - len(own))
                return _ascending([0] * start + self._in_bytes(text, own, spans) + after)
        return [UNKNOWN] * len(ids)

    def _in_bytes(self, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
        """Return the ends in bytes; the last token has read the whole text.

        A token has an end if no later token has a part of its last character, and if nothing but white space lies
        between it and the next one: a normaliser may have made one letter of two, or thrown one away.
        """
        at = [0, *accumulate(len(letter.encode()) for letter in text)]
        ends, later = [at[-1]], spans[-1][0]
        for index, (start, end) in zip(reversed(ids[:-1]), reversed(spans[:-1]), strict=True):
            # byte-level tokenizers leave spaces out of what they tell
            trimmed = "ByteLevel" in self.decoders and self.of_token(index)[-1:] == b" "
            told = start < end <= later and not text[end:later].strip() and not trimmed
            ends.append(at[end] if told else UNKNOWN)
            later = min(later, start)
        return ends[::-1]


def _ascending(ends: Sequence[int]) -> list[int]:
    """Return ends with those left out that lie before an earlier one."""
    found, most = list[int](), 0
    for end in ends:
        found.append(end if end >= most else UNKNOWN)
        most = max(most, end)
    return found
