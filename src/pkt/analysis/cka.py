"""Layer-by-layer linear CKA between teacher, student and transferred student.

The sums are those of `pkt.attribution.similarity`: centred moments of every pair of layers where they fit into
memory, Gram matrices over evenly spread positions where they do not (D = 5120, L = 40). Both read any number of rows,
a batch at a time; both equal the textbook's HSIC form (a test).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from pkt.attribution.similarity import LayerComparison, compare_layers
from pkt.data.encoding import Encoded
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface

PAIRS = (
    ("student", "transferred"),
    ("student", "student"),
    ("transferred", "transferred"),
    ("teacher", "student"),
    ("teacher", "transferred"),
)


def cka_pairs(models: Collection[str]) -> list[tuple[str, str]]:
    """Return the pairs of models whose layers are compared, of those that are there."""
    return [pair for pair in PAIRS if set(pair) <= set(models)]


def cka_matrices(
    models: Mapping[str, Architecture],
    encoded: Encoded,
    *,
    interface: Interface | str,
    positions: str = "all",
    batch_size: int = 8,
    listen: Callable[[int], None] | None = None,
) -> dict[tuple[str, str], LayerComparison]:
    """Return the linear CKA of every layer of one model with every layer of the other, per pair of models.

    Args:
        models: in eval mode, by role; all read the same tokens.
        encoded: the rows.
        interface: where in a layer states are read.
        positions: ``all`` or ``answer``.
        batch_size: rows per forward pass.
        listen: called with the number of rows done after each batch of each pair.

    Returns:
        (first, second) -> CKA, (L_first, L_second), and what it would be by chance.

    Raises:
        RequestError: no position.
    """

    def heard(rows: int, _tokens: int) -> None:
        if listen is not None:
            listen(rows)

    return {
        (first, second): compare_layers(
            models[first],
            models[second],
            encoded,
            interface=interface,
            positions=positions,
            batch_size=batch_size,
            listen=heard,
        )
        for first, second in cka_pairs(models)
    }
