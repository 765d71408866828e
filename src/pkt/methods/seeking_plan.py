"""Which teacher matrix Seeking cuts for which student matrix, checked before any weight is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.surgery import Site, lora_config, matrix_OI, sites

Shapes = dict[str, tuple[int, int]]
"""Smallest or largest (outputs, inputs) of each role over a model's layers."""

_FUSED_THIRDS = ("gpt2",)  # q, k and v one below the other in the fused map's outputs


def check_pair_shapes(
    teacher: Architecture, student: Architecture, targets: Sequence[str], rank: int, alpha: float
) -> None:
    """Refuse a pair of models where a student matrix cannot be cut out of the teacher's; only shapes are read.

    Raises:
        RequestError: fewer layers, a role that one side lacks, a fused map whose parts are not known, a
            dimension of the student's that is larger than the teacher's, a rank that a matrix cannot have; tied
            embeddings (see `pkt.models.surgery.lora_config`).
    """
    if student.depth > teacher.depth:
        raise RequestError(
            f"method=seeking keeps as many teacher layers as the student has, but the student has "
            f"{student.depth} and the teacher {teacher.depth}. Choose a student with at most {teacher.depth}."
        )
    lora_config(student, range(1, student.depth + 1), targets, rank=rank, alpha=alpha)
    needed = _extreme(student, targets, max)
    has = _extreme(teacher, targets, min)
    for role, wanted in needed.items():
        if role not in has:
            raise RequestError(
                f"the student's '{role}' has no counterpart: the teacher's layers have "
                f"{', '.join(teacher.projection_names())}. Choose other matrices: method.recipe=null "
                "'method.update.targets=[...]'."
            )
        blocks(teacher, role)
        blocks(student, role)
        if wanted[0] > has[role][0] or wanted[1] > has[role][1]:
            raise RequestError(
                f"the student's '{role}' is {_shown(wanted)} (outputs x inputs) and does not fit into the "
                f"teacher's {_shown(has[role])}: Seeking cuts a smaller matrix out of a larger one. Choose a larger "
                "teacher, or leave the role out: method.recipe=null 'method.update.targets=[...]'."
            )
        if rank > min(wanted):
            raise RequestError(
                f"method.update.rank={rank} is more than the student's '{role}' ({_shown(wanted)}) can have; "
                f"allowed are ranks from 1 to {min(wanted)}."
            )


def _extreme(arch: Architecture, targets: Sequence[str], pick: Callable[[int, int], int]) -> Shapes:
    shapes: Shapes = {}
    for path, site in sites(arch, range(1, arch.depth + 1), targets).items():
        rows, columns = matrix_OI(arch.model.get_submodule(path)).shape
        known = shapes.get(site.role, (rows, columns))
        shapes[site.role] = (pick(rows, known[0]), pick(columns, known[1]))
    return shapes


def blocks(arch: Architecture, role: str) -> int:
    """Return how many matrices are stacked in a role's map (3 if q, k and v are one); each gets its own window.

    Raises:
        RequestError: a fused map whose inner order is not known (GPT-NeoX mixes q, k and v per head).
    """
    if role != "qkv":
        return 1
    if arch.model.config.model_type in _FUSED_THIRDS:
        return 3
    raise RequestError(
        f"{arch.model.config.model_type} layers compute q, k and v in one map whose rows are mixed per head: no "
        "window of it is a window of q, k or v. Leave q, k and v out: method.recipe=null "
        "'method.update.targets=[up,down,o]'."
    )


def counterpart(site: Site, kept: Sequence[int]) -> Site:
    """Return the teacher's matrix for one of the student's; `kept` are the teacher layers, in order."""
    return Site(role=site.role, layer=None if site.layer is None else kept[site.layer - 1])


def site_key(site: Site) -> str:
    """Name a site in artifacts: ``3.up`` or ``head``."""
    return site.role if site.layer is None else f"{site.layer}.{site.role}"


def site_of(key: str) -> Site:
    """Return the site that `site_key` named."""
    layer, _, role = key.rpartition(".")
    return Site(role=role, layer=int(layer) if layer else None)


def _shown(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
