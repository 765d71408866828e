"""What stands in for a layer that is skipped."""

from __future__ import annotations

from typing import Any

from pkt.late import nn
from pkt.models.taps import entering_state


class PassThrough(nn.Module):
    """Stands in for a layer that is skipped: returns the hidden states it is given, in the form of the layer's output.

    A decoder that asks a layer for something else (which mask it wants) gets the layer's own answer.

    Args:
        layer: the layer, whose parameters are hidden meanwhile.
        returns: how many things it returns in a tuple; None: the state alone.
    """

    def __init__(self, layer: nn.Module, returns: int | None) -> None:
        super().__init__()
        self.stands_for = (layer,)  # in a tuple, so that it is no submodule
        self.returns = returns

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "stands_for":  # not there yet
                raise
            return getattr(self.stands_for[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return `hidden_states`."""
        state = entering_state(args, kwargs)
        return state if self.returns is None else (state, *[None] * (self.returns - 1))
