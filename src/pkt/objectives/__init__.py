"""The terms of a transfer's loss, one file each, and the objective that names them.

states at a layer, their targets  -> Cosine | MeanSquare | Fisher | Geometry   (layer terms)
final-normed states, labels       -> OutputCosine | CrossEntropy               (output terms)
student logits, teacher's tokens  -> Divergence | Uld                          (output terms)
chunks of an answer's text        -> Chunk                                     (output term)
both models' answers              -> Attended                                  (output term, with modules of its own)
"""

from pkt.objectives.attended import Attended, AttendedAnswers
from pkt.objectives.chunk import Chunk, ChunkedAnswers, chunk_log_likelihoods, token_log_probs
from pkt.objectives.chunks import CHUNK, over_chunks
from pkt.objectives.cosine import Cosine
from pkt.objectives.cross_entropy import CrossEntropy, cross_entropy_sum
from pkt.objectives.distributions import Distributions, TokenDistribution, shared_columns, token_distribution
from pkt.objectives.divergence import Divergence, divergence
from pkt.objectives.fisher import Fisher
from pkt.objectives.geometry import Geometry
from pkt.objectives.head import OutputHead
from pkt.objectives.mean_square import MeanSquare
from pkt.objectives.needs import (
    Chunks,
    Head,
    Labels,
    Need,
    Outputs,
    RowIds,
    Sequences,
    States,
    TeacherAnswers,
)
from pkt.objectives.objective import Objective, needed_states
from pkt.objectives.output_cosine import OutputCosine
from pkt.objectives.term import BaseTerm, LayerTerm, Term
from pkt.objectives.uld import Uld
from pkt.objectives.view import Pair, Sizes, Sums, View

__all__ = [
    "CHUNK",
    "Attended",
    "AttendedAnswers",
    "BaseTerm",
    "Chunk",
    "ChunkedAnswers",
    "Chunks",
    "Cosine",
    "CrossEntropy",
    "Distributions",
    "Divergence",
    "Fisher",
    "Geometry",
    "Head",
    "Labels",
    "LayerTerm",
    "MeanSquare",
    "Need",
    "Objective",
    "OutputCosine",
    "OutputHead",
    "Outputs",
    "Pair",
    "RowIds",
    "Sequences",
    "Sizes",
    "States",
    "Sums",
    "TeacherAnswers",
    "Term",
    "TokenDistribution",
    "Uld",
    "View",
    "chunk_log_likelihoods",
    "cross_entropy_sum",
    "divergence",
    "needed_states",
    "over_chunks",
    "shared_columns",
    "token_distribution",
    "token_log_probs",
]
