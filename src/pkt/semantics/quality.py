"""How well a map carries the teacher's states into the student's space, on paired states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pkt.late import Tensor, functional, torch
from pkt.models.precision import compute_device, doubled
from pkt.semantics.alignment import AlignmentMap
from pkt.semantics.massive import BLOCK, without_massive

CHUNK = 512  # positions whose V-wide numbers are alive at once
READ = 1024  # positions that are read out over the vocabulary
RANK_CUT = 1e-5  # singular values of M below this share of the largest count as zero


@dataclass(frozen=True, kw_only=True)
class QualityCard:
    """How good a map is on paired states: y = map(h_T), and h, the untouched student's own state.

    Positions that are massive on either side are left out (`AlignmentMap.massive`).

    Attributes:
        cosine: mean_n cos(y_n, h_n).
        cosine_centred: the same after the mean over the positions is taken off both sides.
        explained_variance: share of the student states' variance about their mean that the mapped states
            predict: 1 - sum |h - y|^2 / sum |h - mean h|^2 for a map that predicts values (ridge). A
            normalised map gives directions without lengths, so one scale and one offset are fitted first,
            which makes it <y_c, h_c>^2 / (|y_c|^2 |h_c|^2), with the sign of the product (our reading).
            It is 0 where the student's states do not vary.
        readout_kl: mean_n KL(p(h_n) || p(y_n)) in nats, p = softmax of the student's read-out; for a normalised
            map y has the mean length of h. It covers at most `READ` evenly spread positions, because each takes V
            numbers. None: the head cannot read the states, since it reads only those of blocks.
        condition: ratio of the largest and the smallest singular value of M that count (with top_k: of the M of
            all tokens).
        rank: number of singular values of M above `RANK_CUT` of the largest.
        positions: N.
        left_out: positions that are massive.
    """

    cosine: float
    cosine_centred: float
    explained_variance: float
    condition: float
    rank: int
    positions: int
    left_out: int = 0
    readout_kl: float | None = None


@torch.no_grad()
def quality_card(
    alignment: AlignmentMap,
    teacher_ND: Tensor,
    student_ND: Tensor,
    *,
    read_out: Callable[[Tensor], Tensor] | None = None,
) -> QualityCard:
    """Measure a map on paired states.

    Args:
        alignment: the map.
        teacher_ND: teacher states (N, D_T).
        student_ND: the student's own states at the same positions (N, D_S).
        read_out: float32 student states, where they are stored, to logits: final norm and head. None: no KL.

    Raises:
        ValueError: no position, or not the same number on both sides.
    """
    if len(teacher_ND) != len(student_ND) or len(student_ND) == 0:
        raise ValueError(
            f"paired states are needed, got {len(teacher_ND)} teacher and {len(student_ND)} student positions"
        )
    (teacher_ND, student_ND), left_out = without_massive((teacher_ND, student_ND), alignment.massive)
    count = len(student_ND)
    cosine, mean_y, mean_h, length_y, length_h = 0.0, torch.zeros(()), torch.zeros(()), 0.0, 0.0
    for y_nD, h_nD in _blocks(alignment, teacher_ND, student_ND):
        cosine += float(functional.cosine_similarity(y_nD, h_nD, dim=-1).sum()) / count
        mean_y = mean_y + y_nD.sum(0) / count
        mean_h = mean_h + h_nD.sum(0) / count
        length_y += float(y_nD.norm(dim=-1).sum())
        length_h += float(h_nD.norm(dim=-1).sum())
    centred, square_y, square_h, product, error = 0.0, 0.0, 0.0, 0.0, 0.0
    for y_nD, h_nD in _blocks(alignment, teacher_ND, student_ND):
        error += float((h_nD - y_nD).square().sum())
        y_nD, h_nD = y_nD - mean_y, h_nD - mean_h
        centred += float(functional.cosine_similarity(y_nD, h_nD, dim=-1).sum()) / count
        square_y += float(y_nD.square().sum())
        square_h += float(h_nD.square().sum())
        product += float((y_nD * h_nD).sum())
    rank, condition = _rank_and_condition(alignment.weight)
    return QualityCard(
        cosine=cosine,
        cosine_centred=centred,
        explained_variance=_explained(alignment, square_y, square_h, product, error),
        condition=condition,
        rank=rank,
        positions=count,
        left_out=left_out,
        readout_kl=None
        if read_out is None
        else _card_kl(alignment, teacher_ND, student_ND, read_out, length_h, length_y),
    )


def _card_kl(
    alignment: AlignmentMap,
    teacher_ND: Tensor,
    student_ND: Tensor,
    read_out: Callable[[Tensor], Tensor],
    length_h: float,
    length_y: float,
) -> float:
    # a norm forgets a length, but for its eps
    stretch = length_h / length_y if alignment.normalise and length_y > 0 else 1.0
    count = min(READ, len(student_ND))
    chosen_n = torch.arange(count) * len(student_ND) // count
    total = 0.0
    for y_nD, h_nD in _blocks(alignment, teacher_ND[chosen_n], student_ND[chosen_n]):
        total += len(h_nD) * readout_kl(h_nD.float(), (stretch * y_nD).float(), read_out)
    return total / count


@torch.no_grad()
def readout_kl(student_ND: Tensor, mapped_ND: Tensor, read_out: Callable[[Tensor], Tensor]) -> float:
    """Return mean_n KL(p(h_n) || p(y_n)) in nats, p = softmax of the student's read-out.

    Args:
        student_ND: the student's own states h.
        mapped_ND: mapped teacher states y.
        read_out: student states to logits (final norm and head: the length of y is arbitrary).

    Raises:
        ValueError: no position, or shapes that differ.
    """
    if student_ND.shape != mapped_ND.shape or len(student_ND) == 0:
        raise ValueError(
            f"paired states are needed, got {tuple(student_ND.shape)} and {tuple(mapped_ND.shape)}"
        )
    total = 0.0
    for h_nD, y_nD in zip(torch.split(student_ND, CHUNK), torch.split(mapped_ND, CHUNK), strict=True):
        own_nV, other_nV = (read_out(side).float().log_softmax(-1) for side in (h_nD, y_nD))
        total += float(functional.kl_div(other_nV, own_nV, reduction="sum", log_target=True))
    return total / len(student_ND)


def _blocks(
    alignment: AlignmentMap, teacher_ND: Tensor, student_ND: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    for teacher_nD, student_nD in zip(
        torch.split(teacher_ND, BLOCK), torch.split(student_ND, BLOCK), strict=True
    ):
        device = compute_device(student_nD)
        yield alignment(teacher_nD).to(device).double(), student_nD.to(device).double()


def _explained(
    alignment: AlignmentMap, square_y: float, square_h: float, product: float, error: float
) -> float:
    if square_h <= 0:
        return 0.0
    if not alignment.normalise:
        return 1.0 - error / square_h
    return product * abs(product) / (square_y * square_h) if square_y > 0 else 0.0


def _rank_and_condition(weight: Tensor) -> tuple[int, float]:
    """Return rank and condition of M from the eigenvalues of the smaller of M M^T and M^T M, in float64."""
    matrix = doubled(weight)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    singular = torch.linalg.eigvalsh(matrix @ matrix.T).clamp_min(0).sqrt()
    kept = singular[singular > RANK_CUT * singular[-1]]
    return len(kept), float(kept[-1] / kept[0]) if len(kept) else 0.0
