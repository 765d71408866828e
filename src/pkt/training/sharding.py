"""A student whose layers several processes share out while it trains: torch's FSDP2 (`fully_shard`).

    plain layers ── sharded ──> copies whose weights are DTensors ── training ──> plain layers, with what they learned

The layers alone are shared out. Embeddings, final norm and head are read directly by pkt's terms; these, and what
trains beside the layers (maps, projections, adapters of the head), are whole in every process. Where nothing is shared
out, all functions here do what torch does with plain tensors.

Processes that share weights have to run the same layers equally often: see `Trainer.idle`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from pkt.errors import RequestError
from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture
from pkt.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What trains, and the layers whose weights are shared out.

    Attributes:
        parameters: by name; those of the layers in parts.
        layers: empty where every process has all weights.
    """

    parameters: Mapping[str, nn.Parameter]
    layers: tuple[nn.Module, ...] = ()


@contextmanager
def sharded(
    arch: Architecture, parameters: Mapping[str, nn.Parameter], processes: Processes
) -> Iterator[Shards]:
    """Share out the student's layers among the processes, where they are to; each has all of them again at the end.

    A body that raises leaves the layers shared out: the other processes would be waited for in vain.

    Args:
        arch: the student, whole in every process. Its plain layers, to which others may refer, lie empty meanwhile.
        parameters: what trains, by its name in the model.
        processes: who trains.

    Raises:
        RequestError: layers share weights with one another.
    """
    if not processes.shards:
        yield Shards(parameters=parameters)
        return
    _check_apart(arch)
    plain = list(arch.layers)
    for index, layer in enumerate(plain):
        arch.layers[index] = _shared_out(layer, processes)
    now = dict(arch.model.named_parameters())
    parts = {name: now.get(name, parameter) for name, parameter in parameters.items()}
    yield Shards(parameters=parts, layers=tuple(arch.layers))
    for index, layer in enumerate(plain):
        _fill(layer, arch.layers[index])
        arch.layers[index] = layer


def rooted(share: nn.Module, processes: Processes) -> nn.Module:
    """Make a module that has the shared-out layers in it, and no weights but theirs, torch's root of them."""
    found = _fully_shard(share, processes)
    found()  # what is called first becomes the root, and a layer may be needed before the first step
    return found


def _check_apart(arch: Architecture) -> None:
    seen = set[int]()
    for number, layer in enumerate(arch.layers, 1):
        own = {id(parameter) for parameter in layer.parameters()}
        if seen & own:
            raise RequestError(
                f"layer {number} of this {arch.model.config.model_type} model has weights of another layer, and FSDP "
                "shares out each layer alone: train it with distributed_type MULTI_GPU (DDP)"
            )
        seen |= own


def _shared_out(layer: nn.Module, processes: Processes) -> nn.Module:
    """Return a copy of a layer whose weights are in parts, and empty the layer's own."""
    own: dict[int, Any] = {id(tensor): tensor for tensor in chain(layer.parameters(), layer.buffers())}
    found = _fully_shard(copy.deepcopy(layer, own), processes)
    for parameter in layer.parameters():
        parameter.data = parameter.data.new_empty(0)
    return found


def _fully_shard(module: nn.Module, processes: Processes) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    return cast(nn.Module, fully_shard(module, mesh=processes.mesh))


@torch.no_grad()
def _fill(layer: nn.Module, parts: nn.Module) -> None:
    """Put the weights of a layer's copy back into the layer."""
    trained = dict(parts.named_parameters())
    for name, parameter in layer.named_parameters():
        parameter.data = whole(trained[name].detach())


def in_parts(tensor: Tensor) -> bool:
    """Return whether this process has a part of a tensor alone."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every process has to ask for it at the same time."""
    found: Tensor = cast(Any, tensor).full_tensor() if in_parts(tensor) else tensor
    return found


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor."""
    found: Tensor = cast(Any, tensor).to_local() if in_parts(tensor) else tensor
    return found


def placed(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor as the parts that another one has; without asking other processes, which have it too."""
    if not in_parts(like):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def grouped(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return parameters by whether they are in parts: torch computes with lists of one kind."""
    groups: dict[bool, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(in_parts(parameter), []).append(parameter)
    return list(groups.values())


def average_whole(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Average the gradients of what is whole over all processes; torch has done it for what is in parts."""
    for parameter in parameters:
        if not in_parts(parameter):
            here = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = processes.averaged(here)


def clip(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients so that the norm of all together is at most a limit, and return what it was."""
    groups = grouped(parameters)
    if len(groups) == 1:
        return whole(nn.utils.clip_grad_norm_(groups[0], limit))
    gradients = [[p.grad for p in group if p.grad is not None] for group in groups]
    norms = [whole(nn.utils.get_total_norm(own)) for own in gradients if own]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, limit, norm)
    return norm
