"""Teachers with and without the student's tokenizer: the jobs of the comparison.

pair -> two groups of the same cells, one with the teacher that shares the student's tokenizer -> Plan
"""

from __future__ import annotations

from collections.abc import Sequence

from paper.plans import Cell, Group, Plan, grouped
from pkt.errors import RequestError

STRANGER = "nano-tokens"
PAIRS = {"nano": "one tokenizer", STRANGER: "two tokenizers"}
METHODS = (
    "sft",
    "seqkd",
    "kd",
    "hidden_kd",
    "semalign",
    "semalign_fisher",
    "semalign_geometry",
    "semalign_joint",
)
TAUGHT = ("kd", "hidden_kd", "semalign_joint")  # by share of the positions
OUTPUTS = {"ULD": "objective=uld", "ALM": "objective=alm"}  # forms of kd
PLACES = {  # forms of semalign_joint
    "chunks for KL": ("~objective.terms.kl", "+term@objective.terms.chunk=chunk"),
    "no output of the teacher": ("~objective.terms.kl",),
}
CONTROLS = {
    "random map": "semantics=random",
    "shuffled targets": "method.targets=shuffled",
    "targets shifted by one": "method.targets=shifted",
}


SHARES = (100, 50, 25, 10)  # per cent of the positions at which both tokenizers meet
ANCHORS = "anchors"
_SHUFFLED = "meeting.anchors=shuffled"
_MAPS = {"map of anchors": "semantics=logit_lstsq", "cosine map": "semantics=cosine"}


def tokens(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of every method with either teacher.

    Raises:
        RequestError: another pair than nano, whose relative has another tokenizer.
    """
    if pair != "nano":
        raise RequestError(f"tokens compares nano with {STRANGER}, not with {pair}; leave --pair out.")
    lead = (
        "The same student, rows and settings; one teacher has the student's tokenizer, the other one of another kind "
        "(BPE of characters instead of bytes, digits alone, 640 tokens instead of 1,152). Both know what is tested."
    )
    groups = [Group(title=title, pair=name, cells=tuple(_cells())) for name, title in PAIRS.items()]
    groups += [Group(title=f"{at} %", pair=STRANGER, cells=tuple(_part(at)), at=at) for at in SHARES]
    groups.append(Group(title=ANCHORS, pair=STRANGER, cells=tuple(_anchored())))
    return grouped("tokens", pair, "A teacher with another tokenizer", groups, seeds, lead)


def _cells() -> list[Cell]:
    joint = "method=semalign_joint"
    return [
        *(Cell(method=method, words=(f"method={method}",)) for method in METHODS),
        *(Cell(method="kd", words=("method=kd", word), form=form) for form, word in OUTPUTS.items()),
        *(Cell(method="semalign_joint", words=(joint, *words), form=form) for form, words in PLACES.items()),
        *(
            Cell(method="semalign_joint", words=(joint, word), form=form, control=True)
            for form, word in CONTROLS.items()
        ),
    ]


def _part(at: int) -> list[Cell]:
    """Return what is compared at a share of the positions; plain fine-tuning compares nothing."""
    words = () if at == 100 else (f"meeting.share={at / 100:g}",)
    taught = (Cell(method=method, words=(f"method={method}", *words)) for method in TAUGHT)
    return [Cell(method="sft", words=("method=sft",)), *taught]


def _anchored() -> list[Cell]:
    """Return what reads anchors, with these and with shuffled ones."""
    joint = "method=semalign_joint"
    return [
        Cell(method="sft", words=("method=sft",)),
        Cell(method="kd", words=("method=kd",)),
        Cell(method="kd", words=("method=kd", _SHUFFLED), form="shuffled", control=True),
        *(
            Cell(
                method="semalign_joint", words=(joint, word, *more), form=f"{form}{told}", control=bool(more)
            )
            for form, word in _MAPS.items()
            for told, more in (("", ()), (", shuffled", (_SHUFFLED,)))
        ),
    ]
