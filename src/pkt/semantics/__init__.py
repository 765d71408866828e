"""Vocabulary-defined semantics: maps from the teacher's latent space to the student's.

    heads | embeddings | paired states -> strategy.fit -> AlignmentMap: (N, D_T) -> (N, D_S) -> QualityCard

Ranks and condition numbers are returned in `AlignmentMap.info`; nothing here logs.
"""

from pkt.semantics.alignment import AlignmentMap, HeadView, Semantics, States
from pkt.semantics.basis import Basis, alignment_matrix, gram
from pkt.semantics.decomposition import TopTokens
from pkt.semantics.factor import factorise, invert
from pkt.semantics.identity import Identity
from pkt.semantics.learning import Refit, Trains, closed_form, learns, refits, trains
from pkt.semantics.logits import LogitLstsq
from pkt.semantics.massive import MASSIVE, ordinary, without_massive
from pkt.semantics.paired import Fitted
from pkt.semantics.procrustes import Procrustes
from pkt.semantics.quality import quality_card, readout_kl
from pkt.semantics.ridge import Ridge
from pkt.semantics.vocabulary import Cosine, Input, RandomMap

__all__ = [
    "MASSIVE",
    "AlignmentMap",
    "Basis",
    "Cosine",
    "Fitted",
    "HeadView",
    "Identity",
    "Input",
    "LogitLstsq",
    "Procrustes",
    "RandomMap",
    "Refit",
    "Ridge",
    "Semantics",
    "States",
    "TopTokens",
    "Trains",
    "alignment_matrix",
    "closed_form",
    "factorise",
    "gram",
    "invert",
    "learns",
    "ordinary",
    "quality_card",
    "readout_kl",
    "refits",
    "trains",
    "without_massive",
]
