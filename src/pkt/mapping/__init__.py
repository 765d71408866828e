"""Layer pairing: which teacher layers go to which student layer.

    (L_T, L_S, scores, similarity) -> strategy -> LayerPair(student, teacher layers, weights), ...

Pure functions of two depths and, where a strategy says so, of one score per teacher layer and of the similarity
of every teacher layer to every student layer; layers are numbered from 1.
"""

from pkt.mapping.pairs import (
    LayerPair,
    Mapping,
    OfCut,
    depth_layer,
    in_order,
    of_student,
    spread,
    top_layers,
)
from pkt.mapping.similar import Cka, Monotone
from pkt.mapping.strategies import Critical, Cut, Depth, Explicit, Interpolate, Last, RandomPairs

__all__ = [
    "Cka",
    "Critical",
    "Cut",
    "Depth",
    "Explicit",
    "Interpolate",
    "Last",
    "LayerPair",
    "Mapping",
    "Monotone",
    "OfCut",
    "RandomPairs",
    "depth_layer",
    "in_order",
    "of_student",
    "spread",
    "top_layers",
]
