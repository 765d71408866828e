"""Layer gradient x activation at every interface, row by row, and how far the interfaces agree on an order.

Shape suffixes: R rows, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pkt.attribution import row_attribution
from pkt.data.batching import Batch, collate, sorted_batches
from pkt.data.encoding import Encoded
from pkt.late import Tensor
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface


def interface_scores(
    arch: Architecture,
    encoded: Encoded,
    *,
    batch_size: int = 8,
    listen: Callable[[int], None] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Score every layer on every row by gradient x activation of the row's mean answer-token cross-entropy.

    Args:
        arch: the model, in eval mode.
        encoded: the rows.
        batch_size: rows per forward and backward pass.
        listen: called with the number of rows done, once per interface.

    Returns:
        interface -> reduction -> (R, L) float64 on the CPU.

    Raises:
        RequestError: no row.
    """

    def batches() -> Iterator[Batch]:
        for rows in sorted_batches(encoded.lengths, batch_size):
            yield collate(encoded, rows).to(arch.device)
            if listen is not None:
                listen(len(rows))

    return {interface.value: row_attribution(arch, batches(), interface) for interface in Interface}


def rank_correlation(first_L: Sequence[float], second_L: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None where a side does not vary.

    Args:
        first_L: one number per layer.
        second_L: the same layers.
    """
    assert len(first_L) == len(second_L)
    if min(len(set(first_L)), len(set(second_L))) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first_L, second_L).statistic)
