"""Remember the digests of tokenised rows, so that a repeated request need not tokenise again.

    texts of rows, tokenizer, template's time, rules of tokenisation -> name of a file -> digest of the tokens

Keys hold the digest of token ids and borders; the texts only serve to find it again. A file is sealed
and names its texts, so that a damaged one, or one under another's name, is not believed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.durable import read_sealed, sealed, write_atomically

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Digests:
    """Remembered digests: a file in a folder for each set of texts.

    Attributes:
        folder: created when something is written; if it cannot be written, nothing is remembered.
    """

    folder: Path

    def of(self, texts: str) -> str | None:
        """Return the digest remembered under a name that `texts_of` gave, or None."""
        file = self._file(texts)
        if not file.exists():
            return None
        try:
            kept = read_sealed(file)
            if kept["texts"] != texts:
                raise ValueError(f"it is about {kept['texts']}")
            return str(kept["digest"])
        except (OSError, ValueError, KeyError) as error:
            log.warning("%s cannot be used (%s): the rows are tokenised again", file, error)
            return None

    def remember(self, texts: str, digest: str) -> None:
        """Remember a digest."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file(texts), sealed({"texts": texts, "digest": digest}))
        except OSError as error:
            log.debug("the digest of rows is not kept: %s", error)

    def _file(self, texts: str) -> Path:
        return self.folder / f"{texts}.json"


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
