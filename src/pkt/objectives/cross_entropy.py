"""Cross-entropy of the answer's tokens.

    L = mean_n -log softmax(z_n)[y_n]

Shape suffixes: N positions (n of a chunk), D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, functional
from pkt.objectives.chunks import CHUNK, check_labels, over_chunks
from pkt.objectives.head import ReadOut
from pkt.objectives.needs import Head, Labels, Need
from pkt.objectives.term import BaseTerm
from pkt.objectives.view import Sums, View


def cross_entropy_sum(
    states_ND: Tensor, labels_N: Tensor, read_out: ReadOut, *, chunk: int = CHUNK
) -> Tensor:
    """Return sum_n -log softmax(z_n)[y_n], `chunk` positions at a time.

    Args:
        states_ND: final-normed states.
        labels_N: y.
        read_out: states to logits.
        chunk: positions whose V-wide numbers are alive at once, in the forward and in the backward pass.

    Raises:
        ValueError: no position, not one label per state, or a chunk below 1.
    """
    check_labels(states_ND, labels_N)

    def surprise(h_nD: Tensor, labels_n: Tensor) -> Tensor:
        return functional.cross_entropy(read_out(h_nD).float(), labels_n, reduction="sum")

    return over_chunks(surprise, states_ND, labels_N, chunk=chunk)


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(BaseTerm):
    """-log p(label), mean over the positions that predict an answer token."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Labels and the head."""
        return (Labels(), Head())

    def __call__(self, view: View) -> Sums:
        """Return the sum over positions."""
        total = cross_entropy_sum(view.final_ND, view.labels_N, view.head.read_out)
        return Sums(total=total, count=view.count)
