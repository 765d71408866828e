"""A process's part of an optimiser step's loss, as a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pkt.late import Tensor, nn, torch


class Share(nn.Module):
    """A part of a step's loss as a module, so that its gradients can be averaged over processes.

    Args:
        parameters: what trains.
        count: processes; the loss is multiplied by it, since the mean over them is to be a sum.
        layers: of the student, where the processes share out their weights.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], count: int, layers: Iterable[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.trained = nn.ParameterList(() if self.layers else parameters)
        self.count = count
        self.now: Callable[[], Tensor | None] | None = None

    def forward(self) -> Tensor | None:
        """Return what `now` gives; alone, nothing where that is nothing."""
        total = self.now() if self.now is not None else None
        if self.count == 1:
            return total
        if self.layers:  # `Trainer.idle` reaches all that trains
            return None if total is None else total * self.count
        # a process may have no row that some parameter, or the whole step, has a use for
        nothing = torch.stack([parameter.sum() for parameter in self.trained]).sum() * 0.0
        return nothing if total is None else total * self.count + nothing
