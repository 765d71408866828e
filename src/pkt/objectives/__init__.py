"""Scalar losses, and the objective that names the terms of a transfer.

states at a layer, mapped targets -> cosine_distance                                     (layer term)
final-normed states, labels       -> output_cosine | output_cosine_dense | cross_entropy (output term)
"""

from pkt.objectives.objective import Objective
from pkt.objectives.terms import cosine_distance, cross_entropy, output_cosine, output_cosine_dense

__all__ = ["Objective", "cosine_distance", "cross_entropy", "output_cosine", "output_cosine_dense"]
