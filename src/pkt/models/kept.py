"""What stays of a teacher in the student that is cut from it: sizes, counts, and the choice itself.

teacher's config -> Sizes ──request──> Counts ──importance (pkt.methods.cutting)──> Kept -> the cut model, its config

Nothing here imports torch: a request is refused by its numbers before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pkt.config import CheckpointSpec, CutConfig
from pkt.errors import RequestError

RECORD = (
    "pkt_cut"  # a cut model's config keeps under this name which layers and channels of its teacher stayed
)
# how configs call their sizes
NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd", "word_embed_proj_dim"),
    "heads": ("num_attention_heads", "n_head"),
    "groups": ("num_key_value_heads",),
    "head": ("head_dim",),
    "mlp": ("intermediate_size", "n_inner", "ffn_dim"),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a model.

    Attributes:
        layers: L.
        hidden: D, channels of the residual stream.
        heads: query heads of a layer.
        groups: key-value heads of a layer, each with heads / groups query heads.
        head: channels of a head.
        mlp: intermediate channels of a layer.
    """

    layers: int
    hidden: int
    heads: int
    groups: int
    head: int
    mlp: int

    @classmethod
    def read(cls, get: Callable[[str], Any]) -> Sizes | None:
        """Return the sizes that a config has; None where it has none of its own (the type's defaults, or lists).

        Args:
            get: returns a value of the config by its name, None where there is none.
        """
        found: dict[str, Any] = {
            size: next((value for name in names if (value := get(name))), None)
            for size, names in NAMES.items()
        }
        hidden, heads = found["hidden"], found["heads"]
        if type(hidden) is not int or type(heads) is not int:
            return None
        found["groups"] = found["groups"] or heads
        found["head"] = found["head"] or hidden // heads
        found["mlp"] = found["mlp"] or 4 * hidden  # GPT-2's own default
        return cls(**found) if all(type(value) is int for value in found.values()) else None

    @property
    def queries(self) -> int:
        """Query heads of a group."""
        return self.heads // self.groups


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much stays; None: all of it.

    Attributes:
        layers: by importance.
        groups: key-value heads of a layer, each with its query heads.
        mlp, hidden: channels.
    """

    layers: int | None = None
    groups: int | None = None
    mlp: int | None = None
    hidden: int | None = None


def counts(cut: CutConfig, sizes: Sizes) -> Counts:
    """Return how much of a teacher stays.

    Raises:
        RequestError: more than there is, or query heads that are no whole groups.
    """
    found = {
        name: count(name, getattr(cut, name), getattr(sizes, name)) for name in ("layers", "mlp", "hidden")
    }
    heads, queries = cut.heads, sizes.queries
    if isinstance(heads, float):  # a share of the groups
        heads = queries * max(1, round(heads * sizes.groups))
    heads = count("heads", heads, sizes.heads)
    if heads is not None and heads % queries:
        alone = "all query heads read one key-value head, so that they stay together: cut mlp or hidden"
        whole = f"choose a multiple of {queries} up to {sizes.heads}"
        raise RequestError(
            f"model.student.cut.heads={heads}: {queries} query heads of the teacher share a key-value head, and such "
            f"groups stay or go as a whole; {whole if sizes.groups > 1 else alone}"
        )
    return Counts(groups=None if heads is None else heads // queries, **found)


def count(name: str, value: int | float | None, size: int) -> int | None:
    """Return a number of things that stay, of a number or of a share of all; None for all."""
    if value is None:
        return None
    number = max(1, round(value * size)) if isinstance(value, float) else value
    if number > size:
        raise RequestError(
            f"model.student.cut.{name}={value}: the teacher has {size}; a number from 1 to {size}, or a share below 1, "
            "is expected"
        )
    return None if number == size else number


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What stays of a teacher, chosen.

    Attributes:
        layers: in ascending order, from 1.
        groups: per layer that stays, its key-value heads that stay, with their query heads; from 0. None: all.
        mlp: per layer that stays, its intermediate channels that stay, from 0. None: all.
        hidden: channels of the residual stream that stay, from 0. None: all.
    """

    layers: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...] | None = None
    mlp: tuple[tuple[int, ...], ...] | None = None
    hidden: tuple[int, ...] | None = None

    @property
    def widths(self) -> dict[str, Any]:
        """What stays of the widths that are cut, by name."""
        found = {"groups": self.groups, "mlp": self.mlp, "hidden": self.hidden}
        return {name: value for name, value in found.items() if value is not None}


def recording(config: Any, kept: Kept, teacher: Any) -> Any:
    """Let a cut model's config say which layers and channels stayed, and of how many; return it."""
    whole = teacher.get_text_config()
    hidden = None if kept.hidden is None else list(kept.hidden)
    sizes = {"of_layers": int(whole.num_hidden_layers), "of_hidden": int(whole.hidden_size)}
    setattr(config, RECORD, {"layers": list(kept.layers), "hidden": hidden, **sizes})
    return config


@dataclass(kw_only=True)
class CutSpec(CheckpointSpec):
    """A student that is cut from its teacher, with all that stays written out."""

    kept: Kept


def kept_by(spec: CheckpointSpec) -> Kept | None:
    """Return what stays of its teacher in a student; None where it is not cut from it."""
    if spec.init != "prune":
        return None
    if isinstance(spec, CutSpec):
        return spec.kept
    assert spec.cut == CutConfig(), "importance is measured first: Workbench.pair has the student's choice"
    return Kept(layers=tuple(spec.layers or ()))


def told(spec: CheckpointSpec) -> str:
    """Say what a student keeps of its teacher; nothing for one that is not cut."""
    if (kept := kept_by(spec)) is None:
        return ""
    widths = {"groups": "key-value heads a layer", "mlp": "mlp channels", "hidden": "hidden channels"}
    more = [
        f", {len(chosen if name == 'hidden' else chosen[0])} {widths[name]}"
        for name, chosen in kept.widths.items()
    ]
    return f"layers {list(kept.layers)}{''.join(more)}"


def recorded(config: Any, layers: int, hidden: int) -> dict[str, Any] | None:
    """Return what a student's config says of its cut; None where it was not cut from a teacher of these sizes.

    Args:
        config: of the student.
        layers: of the teacher.
        hidden: channels of the teacher's residual stream.
    """
    record: dict[str, Any] | None = getattr(config, RECORD, None)
    return record if record and (record["of_layers"], record["of_hidden"]) == (layers, hidden) else None


def spread_out(chosen: Sequence[int], size: int) -> list[int]:
    """Return the channels of some blocks of `size` channels each, from 0."""
    return [block * size + place for block in chosen for place in range(size)]
