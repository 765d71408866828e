"""Resumable state of a run as plain data: tensors in safetensors, the rest in JSON, swapped in atomically.

    <folder>/snapshot/            state.json (sealed; names folder and checksums), tensors.safetensors
    <folder>/snapshot.previous/   the one before: where the newest is damaged, the work goes on from here

A snapshot holds what the next optimiser step depends on and nothing else. The order of batches is a function
of (seed, epoch), so the step number stands for the state of the data, and an interrupted run ends with the
same bits as one that was never stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pkt.durable import (
    PASSING,
    check_file,
    entry,
    move,
    read_sealed,
    sealed,
    set_aside,
    sync_tree,
    write_atomically,
)
from pkt.late import Tensor, nn, torch
from pkt.training.sharding import placed

_NAME, _FRESH, _PREVIOUS = "snapshot", ".snapshot.new", "snapshot.previous"
_STATE, _TENSORS = "state.json", "tensors.safetensors"
_FORMAT = 2  # another number: of another version of pkt, and not to be read


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What was saved after an optimiser step."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_snapshot(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replace the snapshot in `folder`, and keep the one before; a kill at any moment leaves a complete one."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh, previous, target = folder / _FRESH, folder / _PREVIOUS, folder / _NAME
    _clear(fresh)
    if target.exists():  # two are kept, and no third one while the new one is written
        _clear(previous)
    fresh.mkdir()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    from safetensors.torch import save_file

    save_file(plain, fresh / _TENSORS)
    content = {"format": _FORMAT, "place": _place(folder), "files": {_TENSORS: entry(fresh / _TENSORS)}}
    write_atomically(fresh / _STATE, sealed({**content, "state": dict(state)}))
    sync_tree(fresh)
    if target.exists():
        target.replace(previous)
    move(fresh, target)


def _clear(snapshot: Path) -> None:
    """Remove a snapshot, first of all what says that it is one: a kill meanwhile leaves nothing that looks damaged."""
    (snapshot / _STATE).unlink(missing_ok=True)
    shutil.rmtree(snapshot, ignore_errors=True)


def load_snapshot(folder: Path, like: Mapping[str, Tensor]) -> Snapshot | None:
    """Return the newest complete snapshot in `folder`, or None; damaged ones are moved aside.

    Args:
        folder: where `save_snapshot` wrote.
        like: tensors that it has to hold, by name: their shapes are compared.

    Raises:
        OSError: whether there is one cannot be told.
    """
    for name in (_NAME, _FRESH, _PREVIOUS):
        candidate = folder / name
        if not candidate.exists() or (name != _NAME and not (candidate / _STATE).exists()):
            continue  # what a kill left half-written or half-removed is no damage
        try:
            return _read(candidate, _place(folder), like)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise
            set_aside(candidate, error, "the work goes on from the state before")
    return None


def _place(folder: Path) -> str:
    """Return what a snapshot calls its folder, wherever the outputs lie: one of another training is not taken."""
    return "/".join(folder.parts[-2:])


def _read(snapshot: Path, place: str, like: Mapping[str, Tensor]) -> Snapshot:
    content = read_sealed(snapshot / _STATE)
    if (content["format"], content["place"]) != (_FORMAT, place):
        raise ValueError(f"it was written for {content['place']}")
    check_file(snapshot / _TENSORS, content["files"][_TENSORS])
    from safetensors.torch import load_file

    tensors = load_file(snapshot / _TENSORS)
    for name, tensor in like.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise ValueError(f"it holds no {name} of this shape")
    return Snapshot(tensors=tensors, state=content["state"])


def optimiser_tensors(
    parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Flatten parameters and AdamW moments into named tensors."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"parameter:{name}"] = parameter.data
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser:{key}:{name}"] = value
    return tensors


def restore_optimiser(
    parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Write back what `optimiser_tensors` took."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(placed(tensors[f"parameter:{name}"], parameter))
    for name, parameter in parameters.items():
        suffix = f":{name}"
        for key in [k for k in tensors if k.startswith("optimiser:") and k.endswith(suffix)]:
            field = key.removeprefix("optimiser:").removesuffix(suffix)
            # AdamW keeps `step` on the CPU; the moments follow their parameter
            value = tensors[key].clone()
            optimiser.state[parameter][field] = (
                value if field == "step" else placed(value.to(parameter.device), parameter)
            )
