"""Output cosine: the logits against the one-hot label.

    L = mean_n 1 - cos(z_n, onehot(y_n)),   cos = z_y / |z| = (w_y . h) / sqrt(h^T G h),   G = W^T W

so that no logits are formed: N x D numbers instead of N x V. That is exact for a head without bias and soft-cap
(a positive scale of the logits cancels); other heads are read out, a chunk of positions at a time.

Shape suffixes: N positions (n of a chunk), D width, V vocabulary.
Source: SemAlign v1, output term (arXiv 2510.24208); the vocabulary-free form is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from pkt.late import Tensor, torch
from pkt.objectives.chunks import CHUNK, check_labels, over_chunks
from pkt.objectives.head import ReadOut
from pkt.objectives.needs import Head, Labels, Need
from pkt.objectives.scaling import near_one
from pkt.objectives.term import BaseTerm
from pkt.objectives.view import Sums, View

CANCELS = 1e-3  # share of |G| |h|^2 below which too much of h^T G h cancels in float32
ROUND_OFF = 1e-6  # share of |W| |h| below which logits are round-off


def output_cosine_sum(states_ND: Tensor, labels_N: Tensor, weight_VD: Tensor, gram_DD: Tensor) -> Tensor:
    """Return sum_n 1 - cos(z_n, onehot(y_n)) for z = W h, without forming z.

    Where h lies nearly in what W does not span (a rank-deficient head), h^T G h is a small difference of large
    numbers; the logits of those positions are formed after all.

    Args:
        states_ND: final-normed states h.
        labels_N: y.
        weight_VD: W, the head.
        gram_DD: G.

    Raises:
        ValueError: no position, or not one label per state.
    """
    check_labels(states_ND, labels_N)
    with torch.autocast(states_ND.device.type, enabled=False):  # h^T G h in bfloat16 would lose it all
        h_ND, gram = near_one(states_ND.float(), -1), gram_DD.float()
        square_N = ((h_ND @ gram) * h_ND).sum(-1)
        bound_N = gram.norm() * h_ND.detach().square().sum(-1)
        sure_N = square_N.detach() > CANCELS * bound_N
        label_N = (weight_VD[labels_N].float() * h_ND).sum(-1)
        cosine_N = label_N * torch.where(sure_N, square_N, 1.0).rsqrt()
        total = torch.where(sure_N, cosine_N, 0.0).sum()
        if not bool(sure_N.all()):
            least_N = torch.where(
                bound_N > 0, ROUND_OFF**2 * bound_N, 1.0
            )  # any number does for a zero state
            unsure = (side[~sure_N] for side in (h_ND, labels_N, least_N))
            total = total + over_chunks(
                lambda h_nD, *of: _similarity(h_nD @ weight_VD.float().T, *of), *unsure
            )
        return len(labels_N) - total


def dense_output_cosine_sum(
    states_ND: Tensor, labels_N: Tensor, read_out: ReadOut, *, chunk: int = CHUNK, eps: float = 1e-12
) -> Tensor:
    """Return the same from the logits, for heads with a bias or soft-capped logits.

    Args:
        states_ND: final-normed states.
        labels_N: y.
        read_out: states to logits.
        chunk: positions whose V-wide numbers are alive at once, in the forward and in the backward pass.
        eps: lower bound of |z|^2, of logits scaled to the size of 1.

    Raises:
        ValueError: no position, not one label per state, or a chunk below 1.
    """
    check_labels(states_ND, labels_N)
    least_N = torch.full_like(labels_N, eps, dtype=torch.float32)

    def similarity(h_nD: Tensor, labels_n: Tensor, least_n: Tensor) -> Tensor:
        return _similarity(near_one(read_out(h_nD).float(), -1), labels_n, least_n)

    return len(labels_N) - over_chunks(similarity, states_ND, labels_N, least_N, chunk=chunk)


def _similarity(logits_nV: Tensor, labels_n: Tensor, least_n: Tensor) -> Tensor:
    """Return sum_n z_y / |z|, with |z|^2 at least as large as given."""
    label_n = logits_nV.gather(-1, labels_n[:, None]).squeeze(-1)
    return (label_n * torch.maximum(logits_nV.square().sum(-1), least_n).rsqrt()).sum()


@dataclass(frozen=True, kw_only=True)
class OutputCosine(BaseTerm):
    """1 - cos(logits, one-hot label), mean over the positions that predict an answer token."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Labels, and a head whose Gram matrix stays what it is."""
        return (Labels(), Head(frozen=True))

    def __call__(self, view: View) -> Sums:
        """Return the sum over positions."""
        head, states_ND, labels_N = view.head, view.final_ND, view.labels_N
        if head.is_linear:
            total = output_cosine_sum(states_ND, labels_N, head.weight_VD, head.gram_DD)
        else:
            total = dense_output_cosine_sum(states_ND, labels_N, head.read_out)
        return Sums(total=total, count=view.count)
