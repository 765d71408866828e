"""The config of each model: of a folder here, of the hub's cache, a copy that pkt carries, or the hub itself.

Only the last, and a GGUF file, ask transformers, which takes seconds to import.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pkt.config import CheckpointSpec, PairConfig
from pkt.errors import RequestError
from pkt.models.kept import RECORD, counts
from pkt.models.source import locate
from pkt.planning.shapes import WIDTHS, Shape

CARRIED = Path(__file__).resolve().parents[1] / "assets" / "configs.json"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is known of both models.

    Attributes:
        teacher, student: their shapes.
        kept: the teacher's layers that a cut student keeps, from 1, as far as they are known; None: it is not cut.
        told: where the configs come from, for the reader.
        there: whether the files of both are on this machine.
        chosen: whether what stays of a cut student is chosen by looking at the weights.
    """

    teacher: Shape
    student: Shape
    kept: tuple[int, ...] | None
    told: str
    there: bool
    chosen: bool


def pair_of(pair: PairConfig, on_gpu: bool) -> Pair:
    """Return what the configs of a pair say, without reading weights.

    Raises:
        RequestError: a config that describes no model that a plan knows.
        PktError: one that cannot be had.
    """
    found, told, there = {}, [], True
    for who in ("teacher", "student"):
        spec: CheckpointSpec = getattr(pair, who)
        if spec.init == "prune":
            continue
        config, where, here = config_of(spec, who)
        shape = Shape.read(config, _dtype(spec, on_gpu), f"model.{who}.checkpoint={spec.checkpoint}")
        found[who] = replace(shape, spread=bool(spec.device_map)), config
        told.append(f"{who}: {where}")
        there = there and here
    teacher = found["teacher"][0]
    if pair.student.init == "prune":
        student, stays, chosen = _cut(pair, teacher, on_gpu)
        return Pair(teacher=teacher, student=student, kept=stays, told=told[0], there=there, chosen=chosen)
    student, config = found["student"]
    record = config.get(RECORD) or {}
    own = (record.get("of_layers"), record.get("of_hidden")) == (teacher.layers, teacher.width)
    kept = tuple(record["layers"]) if own else None
    return Pair(teacher=teacher, student=student, kept=kept, told="; ".join(told), there=there, chosen=False)


def _dtype(spec: CheckpointSpec, on_gpu: bool) -> str:
    """Return the type of numbers that a model is loaded in; GPUs are taken to have bfloat16."""
    return spec.dtype if spec.dtype != "auto" else "bfloat16" if on_gpu else "float32"


def _cut(pair: PairConfig, teacher: Shape, on_gpu: bool) -> tuple[Shape, tuple[int, ...], bool]:
    """Return the shape of a student that is cut from its teacher, the layers that stay, and whether they are chosen."""
    spec = pair.student
    stays = counts(spec.cut, teacher.sizes)
    if spec.layers:
        kept = tuple(spec.layers)
    elif spec.cut.every:
        kept = tuple(range(1, teacher.layers + 1, spec.cut.every))
    else:  # importance decides which; their number decides what they take
        kept = tuple(range(1, (stays.layers or teacher.layers) + 1))
    chosen = any(value is not None for value in vars(stays).values())
    number = WIDTHS[_dtype(spec, on_gpu)]
    return replace(teacher.cut(stays, len(kept)), bytes=number, spread=bool(spec.device_map)), kept, chosen


def config_of(spec: CheckpointSpec, who: str) -> tuple[dict[str, Any], str, bool]:
    """Return a model's config, where it comes from, and whether the model's files are on this machine.

    Raises:
        RequestError: a checkpoint that does not exist.
        PktError: the hub does not give it.
    """
    source = locate(spec, who)
    if source.kind == "folder":
        return _read(source.local / "config.json"), f"{source.name}/config.json", True
    if source.kind == "hub":
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(source.name, "config.json", revision=source.revision)
        if isinstance(cached, str):
            return _read(Path(cached)), f"the hub's cache ({source.name})", True
        if (known := carried().get(source.name)) is not None:
            return known["config"], f"a copy of {known['source']}", False
    from pkt.models.load import load_config

    config: dict[str, Any] = load_config(spec, teacher=None if who == "teacher" else spec).to_dict()
    return config, source.name, source.kind == "gguf"


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read ({error}): fetch the model anew") from error
    return content


@cache
def carried() -> dict[str, Any]:
    """Return the configs of the hub's models in the pairs that pkt ships, by their ids."""
    return _read(CARRIED)
