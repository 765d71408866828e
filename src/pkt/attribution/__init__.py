"""Which teacher layers matter for the task: one score per layer, from one forward and one backward pass."""

from pkt.attribution.layer import REDUCTIONS, layer_attribution, row_attribution

__all__ = ["REDUCTIONS", "layer_attribution", "row_attribution"]
