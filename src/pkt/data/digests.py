"""Name rows by their texts, so that the digest of their tokens, once found, need not be found again (`pkt.remembered`).

    texts of rows, tokenizer, template's time, rules of tokenisation -> name of a file -> digest of the tokens

Keys hold the digest of token ids and borders; the texts only serve to find it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def texts_of(rows: Iterable[Mapping[str, Any]], how: Mapping[str, Any]) -> str:
    """Return 16 hex digits that identify the prompts and answers of rows and how they become tokens.

    Args:
        rows: with ``prompt`` and ``answer``; nothing else in them is read.
        how: everything else that the tokens depend on, JSON-like.
    """
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps([row["prompt"], row["answer"]]).encode())
    return digest.hexdigest()[:16]
