"""Layer pairing: which teacher layers go to which student layer.

    (L_T, L_S, scores) -> strategy -> LayerPair(student, teacher layers, weights), ...

Pure functions of two depths (and, for `critical`, one score per teacher layer); layers are numbered from 1.
"""

from pkt.mapping.free import Explicit, Last, Random
from pkt.mapping.pairs import LayerPair, Mapping, depth_layer, spread
from pkt.mapping.strategies import Critical, Depth, Interpolate

__all__ = [
    "Critical",
    "Depth",
    "Explicit",
    "Interpolate",
    "Last",
    "LayerPair",
    "Mapping",
    "Random",
    "depth_layer",
    "spread",
]
