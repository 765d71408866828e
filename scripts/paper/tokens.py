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


def tokens(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of every method with either teacher.

    Raises:
        RequestError: another pair than nano, whose relative has another tokenizer.
    """
    check_pair("tokens", pair)
    lead = (
        "The same student, rows and settings; one teacher has the student's tokenizer, the other one of another kind "
        "(BPE of characters instead of bytes, digits alone, 640 tokens instead of 1,152). Both know what is tested."
    )
    groups = [Group(title=title, pair=name, cells=tuple(_cells())) for name, title in PAIRS.items()]
    return grouped("tokens", pair, "A teacher with another tokenizer", groups, seeds, lead)


def check_pair(target: str, pair: str) -> None:
    """Refuse a pair of which there is none with another tokenizer.

    Raises:
        RequestError: it is not nano.
    """
    if pair != "nano":
        raise RequestError(f"{target} is about nano and {STRANGER}, not about {pair}; leave --pair out.")


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
