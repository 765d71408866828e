"""Resumable state of a run as plain data: tensors in safetensors, the rest in JSON, swapped in atomically.

A snapshot holds what the next optimiser step depends on and nothing else. The order of batches is a function
of (seed, epoch), so the step number stands for the state of the data, and an interrupted run ends with the
same bits as one that was never stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_NAME = "snapshot"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What was saved after an optimiser step."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_snapshot(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replace the snapshot in `folder`; a kill at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh, old, target = folder / f".{_NAME}.new", folder / f".{_NAME}.old", folder / _NAME
    for stale in (fresh, old):
        shutil.rmtree(stale, ignore_errors=True)
    fresh.mkdir()
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        fresh / "tensors.safetensors",
    )
    (fresh / "state.tmp").write_text(json.dumps(dict(state)), encoding="utf-8")
    (fresh / "state.tmp").replace(fresh / "state.json")  # written last: its presence means "complete"
    if target.exists():
        target.replace(old)
    fresh.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def load_snapshot(folder: Path) -> Snapshot | None:
    """Return the newest complete snapshot in `folder`, or None."""
    for name in (_NAME, f".{_NAME}.new", f".{_NAME}.old"):
        candidate = folder / name
        if (candidate / "state.json").is_file() and (candidate / "tensors.safetensors").is_file():
            state = json.loads((candidate / "state.json").read_text(encoding="utf-8"))
            return Snapshot(tensors=load_file(candidate / "tensors.safetensors"), state=state)
    return None


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
            parameter.copy_(tensors[f"parameter:{name}"])
    for name, parameter in parameters.items():
        suffix = f":{name}"
        for key in [k for k in tensors if k.startswith("optimiser:") and k.endswith(suffix)]:
            field = key.removeprefix("optimiser:").removesuffix(suffix)
            # AdamW keeps `step` on the CPU; the moments follow their parameter
            device = "cpu" if field == "step" else parameter.device
            optimiser.state[parameter][field] = tensors[key].clone().to(device)
