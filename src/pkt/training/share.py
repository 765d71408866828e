"""A process's part of an optimiser step's loss, as a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pkt.late import Tensor, nn, torch


class Share(nn.Module):
    """A part of a step's loss as a module, so that its gradients can be averaged over processes.

    Args:
        parameters: what trains.
        count: processes; the loss is multiplied by it, since the mean over them is to be a sum.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], count: int) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameters.values())
        self.count = count
        self.now: Callable[[], Tensor | None] | None = None

    def forward(self) -> Tensor | None:
        """Return what `now` gives; alone, nothing where that is nothing."""
        total = self.now() if self.now is not None else None
        if self.count == 1:
            return total
        # a process may have no row that some parameter, or the whole step, has a use for
        nothing = torch.stack([parameter.sum() for parameter in self.trained]).sum() * 0.0
        return nothing if total is None else total * self.count + nothing
