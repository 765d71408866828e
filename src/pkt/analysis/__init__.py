"""What is inside two models: numbers per layer, with their errors over rows. Models and rows in, tensors out.

resolution    do a layer's outputs survive a decomposition over a basis of tokens?
cka           how alike are the layers of two models?
attribution   which layers matter for the answers, at which interface?
maps          how well does each map carry the teacher's states into the student's space, on rows it never saw?
"""

from pkt.analysis.attribution import interface_scores, rank_correlation
from pkt.analysis.cka import cka_matrices, cka_pairs
from pkt.analysis.maps import MapCards, map_cards, training_free
from pkt.analysis.resolution import Recomposition, Resolution, random_recomposition, recomposition, resolution
from pkt.analysis.rows import first_per_task, over_rows, subset

__all__ = [
    "MapCards",
    "Recomposition",
    "Resolution",
    "cka_matrices",
    "cka_pairs",
    "first_per_task",
    "interface_scores",
    "map_cards",
    "over_rows",
    "random_recomposition",
    "rank_correlation",
    "recomposition",
    "resolution",
    "subset",
    "training_free",
]
