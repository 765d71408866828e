"""Which teacher layers matter for the task: one score per layer, from one forward and one backward pass."""

from pkt.attribution.layer import REDUCTIONS, Supervised, layer_attribution, row_attribution

__all__ = ["REDUCTIONS", "Supervised", "layer_attribution", "row_attribution"]
