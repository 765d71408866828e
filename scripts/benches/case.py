"""What a case is: one piece of work, done pkt's way and the textbook's, and how far their numbers may differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from benches.shape import Shape

Numbers = Mapping[str, Tensor]
"""What the work found, by name."""

Work = Callable[[], Numbers]
"""What is timed; it may be called again and again."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One piece of work in two ways.

    Attributes:
        name: of its file and for `--cases`.
        title: its row in the table.
        does: what pkt's way does.
        textbook_does: what the textbook's way does.
        ours: prepares pkt's way at some size; only what it returns is timed.
        textbook: prepares the textbook's.
        error: the largest difference of a number, as a share of the largest of its kind.
        faster: the aim for textbook's seconds over pkt's; None: there is none.
        smaller: the aim for textbook's peak memory over pkt's.
        unavailable: returns why it cannot be measured at some size on this machine; None where it can.
    """

    name: str
    title: str
    does: str
    textbook_does: str
    ours: Callable[[Shape], Work]
    textbook: Callable[[Shape], Work]
    error: float = 1e-3
    faster: float | None = None
    smaller: float | None = None
    unavailable: Callable[[Shape], str | None] = lambda _: None


def difference(got: Numbers, expected: Numbers) -> float:
    """Return the largest difference between two ways, as a share of the largest number of its kind.

    Raises:
        ValueError: they did not find the same kinds of numbers, or not as many.
    """
    if got.keys() != expected.keys():
        raise ValueError(f"pkt found {sorted(got)}, the textbook {sorted(expected)}")
    shares = [0.0]
    for name, wanted in expected.items():
        if got[name].shape != wanted.shape:
            raise ValueError(f"{name}: pkt has {tuple(got[name].shape)}, the textbook {tuple(wanted.shape)}")
        own, other = got[name].double().cpu(), wanted.double().cpu()
        shares.append(float((own - other).abs().max()) / max(float(other.abs().max()), 1e-30))
    return max(shares)
