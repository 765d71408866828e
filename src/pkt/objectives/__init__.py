"""Scalar losses, and the objective that names the terms of a transfer.

states at a layer, mapped targets -> cosine_distance | mean_square | fisher_distance | geometry_distance   (layer)
final-normed states, labels       -> output_cosine | output_cosine_dense | cross_entropy                  (output)
student logits, teacher's tokens  -> divergence                                                           (output)
"""

from pkt.objectives.chunks import CHUNK, over_chunks
from pkt.objectives.divergence import TokenDistribution, divergence, token_distribution
from pkt.objectives.layers import fisher_distance, geometry_distance, mean_square
from pkt.objectives.objective import LayerTerm, Objective
from pkt.objectives.terms import (
    ReadOut,
    cosine_distance,
    cross_entropy,
    output_cosine,
    output_cosine_dense,
)

__all__ = [
    "CHUNK",
    "LayerTerm",
    "Objective",
    "ReadOut",
    "TokenDistribution",
    "cosine_distance",
    "cross_entropy",
    "divergence",
    "fisher_distance",
    "geometry_distance",
    "mean_square",
    "output_cosine",
    "output_cosine_dense",
    "over_chunks",
    "token_distribution",
]
