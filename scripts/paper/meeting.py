"""Where two tokenizers meet: what the positions and the anchors of that are worth.

pair -> the same student and teacher at shares of the positions | with shuffled anchors | compared in other ways -> Plan
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paper.plans import Cell, Group, Plan, grouped
from paper.tokens import PAIRS, STRANGER, check_pair

SHARES = (100, 50, 25, 10)  # per cent of the positions at which both models have read the same text
TAUGHT = ("hidden_kd", "semalign_joint")
JOINT = "semalign_joint"
_SHUFFLED = "meeting.anchors=shuffled"
_SFT = Cell(method="sft", words=("method=sft",))


def meeting(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of one teacher with another tokenizer, compared at fewer positions and through other tokens.

    Raises:
        RequestError: another pair than nano, whose relative has another tokenizer.
    """
    check_pair("meeting", pair)
    lead = (
        f"Student and teacher ({STRANGER}) have two tokenizers. States are compared where both have read the same "
        "text, here at a share of these positions; distributions and one kind of map go over anchors, tokens of the "
        "same bytes, here shuffled as a control. Plain fine-tuning compares nothing."
    )
    groups = [Group(title=f"{at} %", pair=STRANGER, cells=tuple(_part(at)), at=at) for at in SHARES]
    groups += [
        Group(title="anchors", pair=STRANGER, cells=tuple(_anchored())),
        *(Group(title=f"forms, {title}", pair=name, cells=tuple(_formed())) for name, title in PAIRS.items()),
    ]
    return grouped("meeting", pair, "Where two tokenizers meet", groups, seeds, lead)


def _part(at: int) -> Iterator[Cell]:
    words = () if at == 100 else (f"meeting.share={at / 100:g}",)
    yield _SFT
    for method in TAUGHT:
        yield Cell(method=method, words=(f"method={method}", *words))


def _anchored() -> Iterator[Cell]:
    """Yield what reads anchors, with these and with shuffled ones."""
    yield _SFT
    for form, words in (
        ("", ("method=kd",)),
        ("map of anchors", (f"method={JOINT}", "semantics=logit_lstsq")),
    ):
        method = words[0].partition("=")[2]
        yield Cell(method=method, words=words, form=form)
        shuffled = f"{form}, shuffled" if form else "shuffled"
        yield Cell(method=method, words=(*words, _SHUFFLED), form=shuffled, control=True)


def _formed() -> Iterator[Cell]:
    """Yield other ways to compare both models, as validation rows of this pair chose them."""
    yield _SFT
    for method in TAUGHT:
        yield Cell(method=method, words=(f"method={method}",))
    yield Cell(
        method=JOINT, words=(f"method={JOINT}", "objective.terms.layer.weight=10"), form="layer weight 10"
    )
    yield Cell(method="kd", words=("method=kd", "objective=dskd", "optim.epochs=16"), form="DSKD")
