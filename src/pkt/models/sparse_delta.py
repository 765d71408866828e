"""Add something to some rows or columns of a model's linear maps, for one forward pass or for good.

    rows     (up, v)     W[index, :] += delta      <=>  y[..., index] += x delta^T
    columns  (down, o)   W[:, index] += delta^T    <=>  y += x[..., index] delta

In a forward pass the change is two thin products beside the frozen map; no matrix of the map's size is built.
Shape suffixes: n changed rows or columns, D width of the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pkt.late import Tensor, nn, torch
from pkt.models.architecture import Architecture

BY_ROW = ("up", "v")  # maps out of the residual stream: a neuron is a row
BY_COLUMN = ("down", "o")  # maps into it: a neuron is a column


@dataclass(frozen=True, kw_only=True)
class SparseDelta:
    """What is added to some rows or columns of one projection.

    Attributes:
        layer: layer number, from 1.
        module: projection: ``up`` or ``v`` (rows), ``down`` or ``o`` (columns).
        index_n: which rows or columns, each at most once, int64.
        values_nD: what each gets, along the residual stream.
    """

    layer: int
    module: str
    index_n: Tensor
    values_nD: Tensor

    def __post_init__(self) -> None:
        assert self.module in BY_ROW + BY_COLUMN, self.module
        assert len(self.index_n) == len(self.values_nD) == len(torch.unique(self.index_n))

    def detached(self) -> SparseDelta:
        """Return the delta on the CPU, out of any graph."""
        return replace(self, index_n=self.index_n.cpu(), values_nD=self.values_nD.detach().cpu())


@contextmanager
def applied(arch: Architecture, deltas: Sequence[SparseDelta]) -> Iterator[None]:
    """Run the model as if the deltas were in its weights; gradients reach `values_nD`.

    Args:
        arch: the model; its weights are not touched.
        deltas: at most one per projection and layer.
    """
    handles = [
        arch.projection(delta.layer, delta.module).register_forward_hook(_hook(delta)) for delta in deltas
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(delta: SparseDelta) -> Any:
    def by_row(_m: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        index_n, values_nD = delta.index_n.to(output.device), delta.values_nD.to(output.device)
        entering: Tensor = args[0].to(values_nD.dtype)
        added = entering @ values_nD.T
        return torch.index_add(output, -1, index_n, added.to(output.dtype))

    def by_column(_m: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        index_n, values_nD = delta.index_n.to(output.device), delta.values_nD.to(output.device)
        entering: Tensor = args[0].index_select(-1, index_n)
        added = entering.to(values_nD.dtype) @ values_nD
        return output + added.to(output.dtype)

    return by_row if delta.module in BY_ROW else by_column


@torch.no_grad()
def inject(arch: Architecture, deltas: Sequence[SparseDelta]) -> None:
    """Write the deltas into the weights; sums are taken in float32 and cast back."""
    for delta in deltas:
        weight = weight_by_neuron(arch, delta.layer, delta.module)
        index_n = delta.index_n.to(weight.device)
        weight[index_n] = _sum(weight[index_n], delta).to(weight.dtype)


@torch.no_grad()
def norms(arch: Architecture, deltas: Sequence[SparseDelta]) -> dict[str, float]:
    """Measure deltas against the weights that they will change.

    Returns:
        ``delta``: Frobenius norm of all deltas; ``weight``: of the whole matrices that they change; ``rounded``:
        of what the weights' dtype keeps of the deltas, |cast(W + delta) - W|.
    """
    squares = {"delta": 0.0, "weight": 0.0, "rounded": 0.0}
    for delta in deltas:
        weight = weight_by_neuron(arch, delta.layer, delta.module)
        touched_nD = weight[delta.index_n.to(weight.device)]
        kept_nD = _sum(touched_nD, delta).to(weight.dtype).float() - touched_nD.float()
        squares["delta"] += float(delta.values_nD.float().square().sum())
        squares["weight"] += float(weight.float().square().sum())
        squares["rounded"] += float(kept_nD.square().sum())
    return {name: square**0.5 for name, square in squares.items()}


def weight_by_neuron(arch: Architecture, layer: int, module: str) -> Tensor:
    """Return a projection's weight with one row per neuron: a view, so that writing to it writes the model."""
    weight = arch.projection(layer, module).weight
    assert isinstance(weight, Tensor)
    return weight.detach() if module in BY_ROW else weight.detach().T


def _sum(touched_nD: Tensor, delta: SparseDelta) -> Tensor:
    return touched_nD.float() + delta.values_nD.to(touched_nD.device, torch.float32)
