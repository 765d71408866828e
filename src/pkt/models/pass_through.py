"""What stands in for a layer that is skipped, or run twice."""

from __future__ import annotations

from typing import Any

from pkt.late import nn, torch
from pkt.models.taps import entering_state


class StandIn(nn.Module):
    """Stands in for a layer during a forward pass.

    Who asks a layer for something else (a decoder: which mask it wants) gets the layer's own answer.

    Args:
        layer: the layer, whose parameters are hidden meanwhile.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stands_for = (layer,)  # in a tuple, so that it is no submodule

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "stands_for":  # not there yet
                raise
            return getattr(self.stands_for[0], name)


class PassThrough(StandIn):
    """A layer that is skipped: returns the hidden states it is given, in the form of the layer's output.

    Args:
        layer: see `StandIn`.
        returns: how many things it returns in a tuple; None: the state alone.
    """

    def __init__(self, layer: nn.Module, returns: int | None) -> None:
        super().__init__(layer)
        self.returns = returns

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return `hidden_states`."""
        state = entering_state(args, kwargs)
        return state if self.returns is None else (state, *[None] * (self.returns - 1))


class Recomputed(StandIn):
    """A layer that keeps what it is given, and nothing between, and runs again when its gradient is asked for."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""
        return torch.utils.checkpoint.checkpoint(self.stands_for[0], *args, use_reentrant=False, **kwargs)
