"""What a run shows of a result: tables and pairs, remembered, so that the tensors of a reused one need not be read."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pkt.manifest import MANIFEST, content_key
from pkt.mapping import LayerPair
from pkt.methods.base import StageResult
from pkt.remembered import recall, remember
from pkt.store import Artifact
from pkt.table import Table


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is shown of a stage's result.

    Attributes:
        tables: for the console and the tracker.
        pairs: teacher layers per student layer; empty where the result has none.
        scores: one per teacher layer; None where none were needed.
    """

    tables: tuple[Table, ...]
    pairs: tuple[LayerPair, ...] = ()
    scores: tuple[float, ...] | None = None

    @classmethod
    def of(cls, result: Any) -> Shown:
        """Take it from a result."""
        scores = getattr(result, "scores", None)
        return cls(
            tables=tuple(result.tables()),
            pairs=tuple(getattr(result, "pairs", ())),
            scores=None if scores is None else tuple(scores),
        )

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Shown:
        """Take it from JSON."""
        pairs = ({**pair, "teacher": tuple(pair["teacher"])} for pair in plain["pairs"])
        return cls(
            tables=tuple(Table.from_data(table["title"], table) for table in plain["tables"]),
            pairs=tuple(LayerPair(**{**pair, "weights": tuple(pair["weights"])}) for pair in pairs),
            scores=None if plain["scores"] is None else tuple(plain["scores"]),
        )


def shown(artifact: Artifact, kind: type[StageResult], folder: Path, load: Callable[[], Any]) -> Shown:
    """Return what is shown of a result, as it is remembered or else as the result itself says.

    Args:
        artifact: that holds the result.
        kind: the result's class; what is remembered holds as long as its file does.
        folder: of what is remembered.
        load: reads the result.
    """
    parts = {"result": artifact.path / MANIFEST, "code": Path(inspect.getfile(kind)), "own": Path(__file__)}
    about = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in parts.items()}
    file = folder / f"{content_key(about)}.json"
    if known := recall(file, "the result is read again"):
        return Shown.read(known["shown"])
    found = Shown.of(load())
    remember(file, {"shown": asdict(found)})
    return found
