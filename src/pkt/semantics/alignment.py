"""The map between two latent spaces, what it is made from, and what makes it.

Shape suffixes: N positions, V vocabulary, D width (D_T teacher, D_S student).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

from pkt.late import Tensor, torch
from pkt.semantics.decomposition import TopTokens
from pkt.semantics.massive import MASSIVE

States = tuple[Tensor, Tensor]
"""Paired states at the same positions: teacher (N, D_T), student (N, D_S)."""


class ReadsOut(Protocol):
    """A model with a head, of which `HeadView` takes what maps read (`pkt.models.architecture.Architecture`)."""

    def head_weight(self) -> Tensor:
        """Return W, (V, D)."""
        ...

    def embedding_weight(self) -> Tensor:
        """Return the input embedding, (V, D)."""
        ...

    def norm_weight(self) -> Tensor | None:
        """Return what the final norm multiplies a state with, (D), or None."""
        ...


@dataclass(frozen=True, kw_only=True)
class HeadView:
    """What a map sees of a model.

    Attributes:
        weight: W, the LM head, (V, D).
        embedding: the input embedding, (V, D).
        norm: what the final norm multiplies a state with, (D); None where it has no weight.
        shared: rows whose tokens both models have, (A) int64, in the same order on both sides.
        two_vocabularies: whether an id stands for other tokens on the other side: `shared` are all anchors there are.
        channels: of a student that was cut from the teacher, the teacher's channels that it kept, (D) int64; None: all,
            or it was not cut from it.
    """

    weight: Tensor
    embedding: Tensor | None = None
    norm: Tensor | None = None
    shared: Tensor | None = None
    channels: Tensor | None = None
    two_vocabularies: bool = False

    @classmethod
    def of(
        cls,
        model: ReadsOut,
        shared: Tensor | None = None,
        channels: Tensor | None = None,
        *,
        two_vocabularies: bool = False,
    ) -> HeadView:
        """Take it from a model; the arguments are the attributes."""
        norm_D = model.norm_weight()
        return cls(
            weight=model.head_weight().detach(),
            embedding=model.embedding_weight().detach(),
            norm=None if norm_D is None else norm_D.detach(),
            shared=shared,
            channels=channels,
            two_vocabularies=two_vocabularies,
        )


@dataclass(frozen=True, kw_only=True)
class AlignmentMap:
    """h* = M (h - mean) [/ |h - mean|] + bias.

    With `tokens` the decomposition takes the place of M, which is then what it would be with every token kept.

    Attributes:
        weight: M, (D_S, D_T), float32.
        bias: (D_S) or None.
        mean: (D_T), subtracted first, or None.
        normalise: whether the state is scaled to length 1 first (a zero state stays zero).
        name: of the strategy.
        info: ranks, condition numbers and the like.
        tokens: keep the strongest tokens only; None: all of them, summed into M.
        massive: states beyond so many medians of the norms are not what the map is fitted on and judged by; None: all
            states are.
    """

    weight: Tensor
    bias: Tensor | None = None
    mean: Tensor | None = None
    normalise: bool = False
    name: str = ""
    info: dict[str, float | int] = field(default_factory=dict)
    tokens: TopTokens | None = None
    massive: float | None = MASSIVE

    def __post_init__(self) -> None:
        width_student, width_teacher = self.weight.shape
        for what, vector, width in (("bias", self.bias, width_student), ("mean", self.mean, width_teacher)):
            if vector is not None and vector.shape != (width,):
                raise ValueError(f"{what} has shape {tuple(vector.shape)}, the map needs ({width},)")

    def scaled(self, factor: float) -> AlignmentMap:
        """Return the map whose states are longer by a factor."""
        if factor == 1.0:
            return self
        bias = None if self.bias is None else self.bias * factor
        return replace(self, weight=self.weight * factor, bias=bias)

    def __call__(self, states_ND: Tensor, *, eps: float = 1e-12) -> Tensor:
        """Map teacher states.

        Args:
            states_ND: (..., D_T), any float dtype.
            eps: lower bound of |h|.

        Returns:
            (..., D_S) float32, on the states' device.

        Raises:
            ValueError: states of another width.
        """
        if states_ND.shape[-1] != self.weight.shape[1]:
            raise ValueError(f"the map reads {self.weight.shape[1]} channels, got {states_ND.shape[-1]}")
        with torch.autocast(states_ND.device.type, enabled=False):
            h_ND, device = states_ND.float(), states_ND.device
            if self.mean is not None:
                h_ND = h_ND - self.mean.to(device)
            if self.normalise:
                h_ND = h_ND / h_ND.norm(dim=-1, keepdim=True).clamp_min(eps)
            bias = None if self.bias is None else self.bias.to(device)
            if self.tokens is not None:
                return self.tokens(h_ND) if bias is None else self.tokens(h_ND) + bias
            return torch.nn.functional.linear(h_ND, self.weight.to(device), bias)


@runtime_checkable
class Semantics(Protocol):
    """A way to make an alignment map.

    Attributes:
        needs_states: whether `fit` reads paired states of the align split.
        reads_out: whether mapped states lie where the student's head reads.
    """

    needs_states: ClassVar[bool]
    reads_out: ClassVar[bool]

    def fit(self, *, teacher: HeadView, student: HeadView, states: States | None = None) -> AlignmentMap:
        """Make the map from the teacher's space to the student's, on the device of the teacher's head."""
        ...
