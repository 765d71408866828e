"""Which tokens a map through the vocabulary is made of."""

from __future__ import annotations

from torch import Tensor

from pkt.errors import RequestError, nearest
from pkt.semantics.alignment import HeadView

ANCHORS = ("all", "shared")


def anchor_rows(anchors: str, teacher: HeadView, student: HeadView) -> tuple[Tensor | None, Tensor | None]:
    """Return the anchor rows of both sides; None: all of them, by index.

    Args:
        anchors: ``all`` or ``shared``.
        teacher: with `shared`, if that is asked for.
        student: the same.

    Raises:
        RequestError: shared tokens are asked for and were not given, or not the same number of them.
    """
    if anchors == "all":
        return None, None
    if teacher.shared is None or student.shared is None:
        raise RequestError(
            "semantics.anchors=shared needs the tokens that both tokenizers have, and they were not given; "
            "use semantics.anchors=all for models with one vocabulary."
        )
    if len(teacher.shared) != len(student.shared) or len(teacher.shared) == 0:
        raise RequestError(
            f"semantics.anchors=shared: {len(teacher.shared)} teacher and {len(student.shared)} student "
            "tokens; both lists have to be equally long and not empty."
        )
    return teacher.shared, student.shared


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not among a setting's choices.

    Raises:
        ValueError: it is not.
    """
    if value not in allowed:
        raise ValueError(f"{name}={value} is not one of {', '.join(allowed)}{nearest(value, allowed)}")
