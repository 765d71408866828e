"""The semantic basis of one head, and the map between two, of the sizes of Llama 2 13B and 7B."""

from __future__ import annotations

from benches.case import Case, Numbers, Work
from benches.shape import Shape
from pkt.semantics import Basis, Cosine, HeadView, gram, invert
from textbook.maps import textbook_basis, textbook_map


def our_basis(shape: Shape) -> Work:
    """Prepare the student's basis by its Gram matrix."""
    _, weight = shape.heads()

    def basis() -> Numbers:
        made = Basis(weight_VD=weight, factor=invert(gram(weight), Cosine().rcond))
        return {"basis": made.vectors(len(weight))}

    return basis


def textbook_basis_of(shape: Shape) -> Work:
    """Prepare the same by the pseudoinverse, in float32."""
    _, weight = shape.heads()
    return lambda: {"basis": textbook_basis(weight)}


def our_map(shape: Shape) -> Work:
    """Prepare the map through two Gram matrices."""
    teacher, student = (HeadView(weight=weight) for weight in shape.heads())
    return lambda: {"matrix": Cosine().fit(teacher=teacher, student=student).weight}


def textbook_map_of(shape: Shape) -> Work:
    """Prepare the map by two pseudoinverses, in float32."""
    teacher, student = shape.heads()
    return lambda: {"matrix": textbook_map(teacher, student)}


CASES = (
    Case(
        name="map",
        title="map between two heads",
        does="Gram matrices in blocks, inverses, in float64",
        textbook_does="two pseudoinverses and their product, in float32",
        ours=our_map,
        textbook=textbook_map_of,
        faster=2,
        smaller=3,
    ),
    Case(
        name="basis",
        title="basis of the student's head",
        does="Gram matrix in blocks, an inverse, in float64",
        textbook_does="the pseudoinverse, in float32",
        ours=our_basis,
        textbook=textbook_basis_of,
    ),
)
