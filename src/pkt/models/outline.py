"""What a plan has to know of a model's configs: a few numbers, remembered, so that planning needs no transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pkt.config import CheckpointSpec
from pkt.manifest import content_key
from pkt.models.kept import RECORD
from pkt.models.source import locate
from pkt.remembered import recall, remember

VERSION = 2  # of what is remembered
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
"""How configs call the length of their context."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A model in numbers, most of them by the names that its config has for them.

    Attributes:
        num_hidden_layers: L.
        hidden_size: D.
        context: positions that it was made for; None: no limit.
        pkt_cut: which layers and channels of its teacher it kept; None: it was not cut from one.
    """

    num_hidden_layers: int
    hidden_size: int
    context: int | None
    pkt_cut: dict[str, Any] | None

    @classmethod
    def of(cls, config: Any) -> Outline:
        """Return the outline of a transformers config."""
        return cls(
            num_hidden_layers=int(config.num_hidden_layers),
            hidden_size=int(config.hidden_size),
            context=known_context(config),
            pkt_cut=getattr(config, RECORD, None),
        )


def known_context(config: Any) -> int | None:
    """Return the number of positions that a model's config names; None where it names none."""
    get = config.get if isinstance(config, Mapping) else lambda name: getattr(config, name, None)
    named = map(get, _POSITIONS)
    return next((int(number) for number in named if isinstance(number, int) and number > 0), None)


def known_of(
    what: str, spec: CheckpointSpec, identity: str, folder: Path, find: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a model's files say, as it is remembered or else as `find` reads it.

    On the hub a name may stand for other files tomorrow: what is there is read each time.

    Args:
        what: kind of fact, for the file's name.
        spec: the checkpoint whose files are read.
        identity: of the model, made of the content of all its files.
        folder: of what is remembered.
        find: reads the files, and returns plain data.
    """
    if locate(spec, "teacher").kind == "hub":
        return dict(find())
    about = {"version": VERSION, "transformers": version("transformers"), "model": identity}
    file = folder / f"{what}-{content_key(about)}.json"
    if known := recall(file, "the model's files are read again"):
        return dict(known[what])
    found = dict(find())
    remember(file, {what: found})
    return found
