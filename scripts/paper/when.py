"""Where transfer pays: the jobs of labels against prompts, of cut students, and of the table of situations.

pair, seeds -> groups of cells (each with its own sft) -> Plan
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paper.plans import NANO, OWN, REAL, Cell, Group, Plan, every_layer, grouped
from pkt.errors import RequestError

STEPS = 500  # optimiser steps of every arm of labels against prompts
TASKS = 4  # of nano; sizes are per task
LABELLED = (25, 75, 250)
FEW = 75  # the labels of the situation with few of them
PROMPTS = 500
ROOM = max(LABELLED) + PROMPTS  # train rows that labels and prompts are taken from
CUT = ("nano-cut", "nano-narrow")
CUT_STEPS = (25, 100, 400)
SHORT = 100  # the steps of cut students in the table of situations
REAL_STEPS = (200,)
JOINT = "semalign_joint"
GEOMETRY = "semalign_geometry"
FORMS = (JOINT, GEOMETRY)  # of SemAlign, with controls of their own
RIVALS = ("seqkd", "kd", "hidden_kd")
TAUGHT = (*RIVALS, JOINT)  # the methods that have a use for prompts
PLAIN = "sft"
WITH_PROMPTS = f"{TASKS * PROMPTS:,} prompts"
CUT_FORM = "semalign_cut"  # the default of cut pairs
NANO_CODE = "benchmark.tasks=[nano_code,nano_program]"
CONTROLS = {
    "random map": ("semantics=random",),
    "shuffled targets": ("method.targets=shuffled",),
    "random pairs": ("mapping=random",),
}
# relations between tokens nearly survive a random map, so it controls nothing there
WITHOUT = {GEOMETRY: "random map"}
_NOW = "optim.validate_every=0"  # few rows are many epochs, and nothing is chosen by their validations


def labels(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of the figure of labels against prompts.

    Raises:
        RequestError: the pair is not taught on the four tasks of nano.
    """
    if OWN.get(pair) != NANO:
        raise RequestError(
            f"labels counts rows of the four tasks of nano, which {pair} is not taught on; take nano or nano-peer."
        )
    lead = (
        f"Labels are rows with the task's own answers, of {TASKS} tasks together; prompts are {TASKS * PROMPTS:,} more "
        "train rows whose own answers nobody reads: the teacher answers them. Every arm has "
        f"{STEPS} optimiser steps."
    )
    groups = [
        Group(
            title=_count(per_task),
            pair=pair,
            at=TASKS * per_task,
            cells=(*_alone(per_task), *_taught(per_task)),
        )
        for per_task in LABELLED
    ]
    return grouped("labels", pair, f"Labels against prompts, {pair}", groups, seeds, lead)


def cuts(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of students that are cut from their teacher: both kinds for nano, else the pair's.

    Raises:
        RequestError: the pair's student is not cut from its teacher.
    """
    own = OWN.get(pair)
    pairs = CUT if pair == "nano" else (pair,)
    if pair not in ("nano", *CUT) and own != REAL:
        real = ", ".join(name for name, words in OWN.items() if words == REAL)
        raise RequestError(
            f"cuts is about students cut from their teacher, and that of {pair} is not; take nano (for "
            f"{' and '.join(CUT)}), one of these two, or {real}."
        )
    lead = "The student is its teacher without some of its layers or channels; every arm of a table has the same steps."
    groups = [
        cut_group(name, steps) for name in pairs for steps in (REAL_STEPS if own == REAL else CUT_STEPS)
    ]
    return grouped("cuts", pair, f"Students cut from their teacher, {pair}", groups, seeds, lead)


def situations(pair: str, seeds: Sequence[int]) -> Plan:
    """Return the jobs of the table of situations.

    Raises:
        RequestError: another pair than nano, whose relatives the situations are.
    """
    if pair != "nano":
        raise RequestError(
            f"situations are those of nano and its relatives, not of {pair}; leave --pair out."
        )
    lead = (
        "Means over tasks. A control is the form with a random map, with shuffled targets, or with random pairs of "
        f"layers, drawn anew for each seed; beside {CUT_FORM} stand those of {JOINT}. seqkd takes the teacher's "
        "answers in place of the labels where no prompts are said to be there."
    )
    groups = [
        *_all_labels("expert teacher, all labels", "nano"),
        *_all_labels("peer teacher, all labels", "nano-peer"),
        *_few_labels(),
        *_cut_situations(),
        *_all_labels("teacher of code, its tasks", "nano-code", NANO_CODE, forms=(JOINT,)),
    ]
    return grouped("situations", pair, "Where transfer pays", groups, seeds, lead)


def cut_group(pair: str, steps: int) -> Group:
    """Return what a cut student is trained by, for a number of steps."""
    more = (f"optim.steps={steps}", _NOW)
    cells = [_cell(method, *more) for method in (PLAIN, *TAUGHT, CUT_FORM)]
    return Group(title=f"{pair}, {steps} steps", pair=pair, at=steps, cells=tuple(cells))


def _cut_situations() -> Iterator[Group]:
    """Yield a group for the joint form and one for that of cut students, of each way to cut."""
    for pair, way in zip(CUT, ("depth", "width"), strict=True):
        *rivals, joint, own = cut_group(pair, SHORT).cells
        title = f"student cut by {way}, {SHORT} steps"
        controls = _controls(JOINT, *joint.words[1:])
        yield Group(title=title, pair=pair, cells=(*rivals, joint, *controls))
        yield Group(title=f"{title}, {CUT_FORM}", pair=pair, cells=(*rivals, own, *controls))


def _all_labels(title: str, pair: str, *more: str, forms: Sequence[str] = FORMS) -> Iterator[Group]:
    rivals = [_cell(method, *more) for method in (PLAIN, *RIVALS)]
    return _of_each_form(forms, title, pair, rivals, *more)


def _few_labels() -> Iterator[Group]:
    title = f"expert teacher, {_count(FEW)}, {WITH_PROMPTS}"
    rivals = (*_alone(FEW)[:1], *_taught(FEW)[: len(RIVALS)])
    return _of_each_form(FORMS, title, "nano", rivals, *_with_prompts(FEW), form=WITH_PROMPTS)


def _of_each_form(
    forms: Sequence[str], title: str, pair: str, rivals: Sequence[Cell], *more: str, form: str = ""
) -> Iterator[Group]:
    """Yield a group per form of SemAlign: the rivals, the form, and its controls."""
    for method in forms:
        own = _cell(method, *more, form=form)
        named = title if method == JOINT else f"{title}, {method}"
        yield Group(title=named, pair=pair, cells=(*rivals, own, *_controls(method, *more)))


def _alone(per_task: int) -> list[Cell]:
    """Return the cells of labels without prompts; seqkd would have no answers beside them."""
    return [_cell(method, *_labelled(per_task)) for method in (PLAIN, *TAUGHT) if method != "seqkd"]


def _taught(per_task: int) -> list[Cell]:
    return [_cell(method, *_with_prompts(per_task), form=WITH_PROMPTS) for method in TAUGHT]


def _labelled(per_task: int) -> tuple[str, ...]:
    return f"data.sizes.train={ROOM}", f"data.sizes.labelled={per_task}", f"optim.steps={STEPS}", _NOW


def _with_prompts(per_task: int) -> tuple[str, ...]:
    return *_labelled(per_task), "data.unlabelled=train", f"data.sizes.unlabelled={PROMPTS}"


def _controls(method: str, *more: str) -> list[Cell]:
    """Return a form with something random in it."""
    return [
        _cell(method, *every_layer(words), *more, form=name, control=True)
        for name, words in CONTROLS.items()
        if name != WITHOUT.get(method)
    ]


def _cell(method: str, *words: str, form: str = "", control: bool = False) -> Cell:
    return Cell(method=method, words=(f"method={method}", *words), form=form, control=control)


def _count(per_task: int) -> str:
    return f"{TASKS * per_task:,} labels"
