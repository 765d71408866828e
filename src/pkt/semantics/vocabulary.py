"""Maps through the vocabulary: the teacher's coefficients over its tokens, recomposed over the student's.

All are linear in h / |h|, so that V coefficients per state are never computed: h* = M h / |h|. Only `Cosine` with
`top_k` is not linear, and computes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pkt.errors import RequestError
from pkt.late import Tensor, torch
from pkt.semantics.alignment import AlignmentMap, HeadView, States
from pkt.semantics.basis import Basis, alignment_matrix, gram
from pkt.semantics.decomposition import TopTokens
from pkt.semantics.factor import invert
from pkt.semantics.learning import Trains
from pkt.settings import MOST_SEED, setting

Anchors = Literal["all", "shared"]


@dataclass(frozen=True, kw_only=True)
class Cosine(Trains):
    """SemAlign's map, M = S_S S_T^T with the semantic bases s_i = G^-1 w_i / |G^-1 w_i| of both heads.

    v1: a = S_T^T h / |h|, h* = S_S a (arXiv 2510.24208). Rank-deficient heads are normal (tied, padded or
    never-trained rows): G^-1 is a pseudoinverse with a relative cut, and a zero basis vector contributes
    nothing.

    Attributes:
        fold_norm: multiply each column of W by the final norm's weight, through which a layer's output meets
            the head (ours).
        anchors: ``all`` rows (index-aligned; rows beyond the shorter vocabulary are padding) or those of
            ``HeadView.shared``, which are all that two vocabularies have. G is always that of the whole head.
        rcond: eigenvalues of G below rcond times the largest count as zero.
        precision: of the block products (``float64`` or ``float32``); G, sums and solves are float64.
        top_k: per state, recompose only the k tokens of largest |a_i| (the paper's strength of decomposition);
            None, or as many as there are: all of them. Both bases are then held in memory and stored,
            V (D_T + D_S) numbers.

    Raises:
        ValueError: a map that trains, and is no matrix.
    """

    needs_states: ClassVar[bool] = False
    reads_out: ClassVar[bool] = True

    fold_norm: bool = False
    anchors: Anchors = "all"
    rcond: float = setting(1e-10, at_least=0, below=1)
    precision: Literal["float64", "float32"] = "float64"
    top_k: int | None = setting(None, at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainable and self.top_k is not None:
            raise ValueError(
                f"trainable=true trains the matrix of all tokens, and top_k={self.top_k} has none: set top_k=null"
            )

    @torch.no_grad()
    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Return the map; info: rank_*, width_*, condition_* of both heads (of W, kept part), anchors.

        Raises:
            RequestError: ``anchors=shared`` without shared tokens.
            PktError: a head that is zero or not finite.
        """
        teacher_rows, student_rows = anchor_rows(self.anchors, teacher, student)
        info: dict[str, float | int] = {}
        bases = []
        for who, view, rows in (("teacher", teacher, teacher_rows), ("student", student, student_rows)):
            scale_D = view.norm if self.fold_norm else None
            factor = invert(gram(view.weight, scale_D=scale_D), self.rcond)
            bases.append(Basis(weight_VD=view.weight, factor=factor, scale_D=scale_D, rows=rows))
            info |= {f"rank_{who}": factor.rank, f"width_{who}": view.weight.shape[1]}
            info[f"condition_{who}"] = factor.condition
        info["anchors"] = min(basis.size for basis in bases)
        matrix = alignment_matrix(bases[1], bases[0], dtype=getattr(torch, self.precision))
        whole = _normalised_map(matrix, "cosine", info, teacher)
        return whole if self.top_k is None else _strongest(whole, bases[0], bases[1], self.top_k)


@dataclass(frozen=True, kw_only=True)
class Input:
    """The paper's negative control: the input-side basis, s_i = e_i / |e_i| with e_i the embedding rows.

    Our reading of "input-side basis": the embedding rows themselves, without a pseudoinverse; otherwise the
    construction of `Cosine`, M = S_S S_T^T.

    Attributes:
        anchors: ``all`` or ``shared``, as in `Cosine`.
    """

    needs_states: ClassVar[bool] = False
    reads_out: ClassVar[bool] = False

    anchors: Anchors = "all"

    @torch.no_grad()
    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Return the map; info: anchors, width_*.

        Raises:
            RequestError: no embeddings, or ``anchors=shared`` without shared tokens.
        """
        if teacher.embedding is None or student.embedding is None:
            raise RequestError("semantics=input reads both models' embeddings, and they were not given.")
        teacher_rows, student_rows = anchor_rows(self.anchors, teacher, student)
        left = Basis(weight_VD=student.embedding, factor=None, rows=student_rows)
        right = Basis(weight_VD=teacher.embedding, factor=None, rows=teacher_rows)
        info: dict[str, float | int] = {
            "anchors": min(left.size, right.size),
            "width_teacher": teacher.embedding.shape[1],
            "width_student": student.embedding.shape[1],
        }
        return _normalised_map(alignment_matrix(left, right), "input", info, teacher)


@dataclass(frozen=True, kw_only=True)
class RandomMap:
    """A control: a Gaussian matrix with the Frobenius norm of the cosine map.

    Attributes:
        seed: of the matrix.
    """

    needs_states: ClassVar[bool] = False
    reads_out: ClassVar[bool] = True

    seed: int = setting(0, at_least=0, at_most=MOST_SEED)

    @torch.no_grad()
    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Return the map; info as `Cosine`.

        Raises:
            PktError: a head that is zero or not finite.
        """
        cosine = Cosine().fit(teacher=teacher, student=student)
        generator = torch.Generator().manual_seed(self.seed)
        matrix = torch.randn(cosine.weight.shape, generator=generator, dtype=torch.float64)
        matrix *= cosine.weight.double().norm().cpu() / matrix.norm()
        return _normalised_map(matrix, "random", cosine.info, teacher)


def anchor_rows(anchors: str, teacher: HeadView, student: HeadView) -> tuple[Tensor | None, Tensor | None]:
    """Return the anchor rows of both sides; None: all of them, by index.

    Of two vocabularies the shared tokens are all anchors there are, whatever was asked for.

    Args:
        anchors: ``all`` or ``shared``.
        teacher: with `shared`, if that is asked for.
        student: the same.

    Raises:
        RequestError: shared tokens are asked for and were not given, or not the same number of them; fewer tokens are
            shared by two vocabularies than the narrower model is wide.
    """
    two = teacher.two_vocabularies or student.two_vocabularies
    if anchors == "all" and not two:
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
    least = min(teacher.weight.shape[1], student.weight.shape[1])
    if two and len(teacher.shared) < least:
        raise RequestError(
            f"both vocabularies have {len(teacher.shared)} tokens of the same bytes, and a map made of them needs at "
            f"least {least}, the width of the narrower model: use semantics=ridge or procrustes, which are fitted on "
            "states."
        )
    return teacher.shared, student.shared


def _normalised_map(
    matrix: Tensor, name: str, info: dict[str, float | int], teacher: HeadView
) -> AlignmentMap:
    weight = matrix.float().to(teacher.weight.device)
    return AlignmentMap(weight=weight, normalise=True, name=name, info=info)


def _strongest(whole: AlignmentMap, teacher: Basis, student: Basis, top_k: int) -> AlignmentMap:
    """Return the map that keeps the k strongest tokens; the linear one where that is all of them."""
    count = min(teacher.size, student.size)
    if top_k >= count:
        return whole
    tokens = TopTokens(
        teacher_AD=teacher.vectors(count),
        student_AD=student.vectors(count).to(whole.weight.device),
        top_k=top_k,
    )
    return replace(whole, tokens=tokens, info=whole.info | {"top_k": top_k})
