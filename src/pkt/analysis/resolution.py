"""Resolution of semantics: what is left of a layer's output when it is taken apart over a basis of tokens.

    r -> proj(r, s_i) for every token i -> their sum: S S^T r, one D x D product -> cosine(sum, r) per token of a row

S is D x V with the unit vectors s_i as columns. There are more of them than channels (V > D), so S S^T is not the
identity and the sum is not r: the cosine says how far it points the same way. Controls go with it: random directions,
as many as there are tokens; a state that points anywhere; and the exact recomposition S S^+ r, which loses only what S
does not span.
Shape suffixes: R rows, L layers, D width, V tokens, r rank, n positions, B rows, T positions of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pkt.data.batching import collate, position_mask, sorted_batches
from pkt.data.encoding import Encoded
from pkt.late import Tensor, functional, torch
from pkt.models.architecture import Architecture
from pkt.models.precision import compute_device
from pkt.models.taps import Interface, decode, tap
from pkt.semantics.basis import BLOCK, Basis, alignment_matrix, gram
from pkt.semantics.factor import factorise, invert

RCOND = 1e-10  # eigenvalues of G and of S S^T below this share of the largest count as zero


@dataclass(frozen=True, kw_only=True)
class Recomposition:
    """The sum of a state's projections onto a basis, as one matrix.

    Attributes:
        matrix_DD: S S^T, float64 on the CPU.
        frame_Dr: an orthonormal frame of what S spans: S S^+ = Q Q^T.
        size: V, number of basis vectors.
        condition: ratio of the extreme eigenvalues of S S^T in what S spans.
    """

    matrix_DD: Tensor
    frame_Dr: Tensor
    size: int
    condition: float

    @property
    def rank(self) -> int:
        """Number of directions that S spans."""
        return self.frame_Dr.shape[1]

    @property
    def lowest(self) -> float:
        """The lowest cosine(S S^T r, r) that any state can have: 2 sqrt(k) / (1 + k), k the condition.

        Kantorovich's inequality; 0 where S does not span the whole space.
        """
        if self.rank < len(self.matrix_DD):
            return 0.0
        return 2 * math.sqrt(self.condition) / (1 + self.condition)

    @property
    def typical(self) -> float:
        """The cosine(S S^T r, r) of a state that may point anywhere: tr(S S^T) / (sqrt(D) |S S^T|_F).

        The ratio of the root mean squares, so that it holds for many channels.
        """
        return float(self.matrix_DD.trace() / (math.sqrt(len(self.matrix_DD)) * self.matrix_DD.norm()))


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Means over the positions of each row, (R, L) float64 on the CPU.

    Attributes:
        cosine_RL: cosine(S S^T r, r).
        stretch_RL: |S S^T r| / |r|; 1 everywhere only if S S^T were the identity.
        exact_RL: cosine(S S^+ r, r) = |Q^T r| / |r|; 1 where S spans the whole space.
    """

    cosine_RL: Tensor
    stretch_RL: Tensor
    exact_RL: Tensor


def recomposition(weight_VD: Tensor, side: str) -> Recomposition:
    """Return the recomposition over one side's basis.

    Args:
        weight_VD: LM head (output side) or input embedding (input side).
        side: ``output``: s_i = G^+ w_i, G = W^T W (rows of the pseudoinverse's transpose); ``input``: the rows
            themselves. Both scaled to length 1; a zero row has no basis vector.

    Raises:
        PktError: a matrix that is zero or not finite.
    """
    assert side in ("output", "input"), side
    factor = invert(gram(weight_VD), RCOND) if side == "output" else None
    basis = Basis(weight_VD=weight_VD.detach(), factor=factor)
    return _recomposed(alignment_matrix(basis, basis).cpu(), len(weight_VD))


def random_recomposition(
    size: int, width: int, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Recomposition:
    """Return the control: `size` random directions, uniform on the sphere.

    S S^T is then close to (V / D) I, the closer the more tokens there are.

    Args:
        size: V.
        width: D.
        seed: of the directions.
        device: where blocks are multiplied.
    """
    generator = torch.Generator().manual_seed(seed)
    total_DD = torch.zeros(width, width, dtype=torch.float64, device=device)
    for start in range(0, size, BLOCK):
        drawn_nD = torch.randn(min(BLOCK, size - start), width, generator=generator)
        rows_nD = functional.normalize(drawn_nD.to(device).double(), dim=-1)
        total_DD += rows_nD.T @ rows_nD
    return _recomposed(total_DD.cpu(), size)


def _recomposed(matrix_DD: Tensor, size: int) -> Recomposition:
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    factor = factorise(matrix_DD, RCOND)
    return Recomposition(
        matrix_DD=matrix_DD,
        frame_Dr=factor.vectors_Dr.contiguous(),
        size=size,
        condition=float(factor.values_r[0] / factor.values_r[-1]),
    )


@torch.no_grad()
def resolution(
    arch: Architecture,
    encoded: Encoded,
    bases: Mapping[str, Recomposition],
    *,
    interface: Interface | str,
    positions: str = "all",
    batch_size: int = 8,
    listen: Callable[[int], None] | None = None,
) -> dict[str, Resolution]:
    """Measure how a model's layers survive each recomposition, in one pass over the rows.

    Args:
        arch: the model, in eval mode.
        encoded: the rows.
        bases: recompositions by name.
        interface: where in a layer r is read.
        positions: ``all`` (every token of a row) or ``answer`` (those that predict an answer token).
        batch_size: rows per forward pass.
        listen: called with the number of rows done after each batch.

    Returns:
        A `Resolution` per basis, rows in the order of `encoded`.
    """
    depth, device = arch.depth, compute_device(arch.embedding_weight())
    means = {name: torch.zeros(3, len(encoded.lengths), depth, dtype=torch.float64) for name in bases}
    operators = {
        name: (basis.matrix_DD.float().to(device), basis.frame_Dr.float().to(device))
        for name, basis in bases.items()
    }
    for rows in sorted_batches(encoded.lengths, batch_size):
        batch = collate(encoded, rows).to(arch.device)
        with tap(arch, range(1, depth + 1), interface) as states:
            decode(arch, batch.input_ids, batch.attention_mask)
        mask_BT = position_mask(batch, positions)
        row_n = mask_BT.nonzero()[:, 0].to(device)
        for layer in range(1, depth + 1):
            state_BTD = states.pop(layer)
            r_nD = state_BTD[mask_BT.to(state_BTD.device)].to(device).float()
            for name, (matrix_DD, frame_Dr) in operators.items():
                values_3n = recomposed_share(r_nD, matrix_DD, frame_Dr)
                means[name][:, rows, layer - 1] = _row_means(values_3n, row_n, len(rows))
        if listen is not None:
            listen(len(rows))
    return {
        name: Resolution(cosine_RL=part[0], stretch_RL=part[1], exact_RL=part[2])
        for name, part in means.items()
    }


def recomposed_share(r_nD: Tensor, matrix_DD: Tensor, frame_Dr: Tensor, *, eps: float = 1e-12) -> Tensor:
    """Return cosine(S S^T r, r), |S S^T r| / |r| and cosine(S S^+ r, r), (3, n) float32; 0 for a zero state.

    Args:
        r_nD: float32 states.
        matrix_DD: S S^T.
        frame_Dr: Q.
        eps: lower bound of the states' lengths.
    """
    unit_nD = functional.normalize(r_nD, dim=-1, eps=eps)
    sum_nD = unit_nD @ matrix_DD
    cosine_n = functional.cosine_similarity(sum_nD, unit_nD, dim=-1)
    return torch.stack([cosine_n, sum_nD.norm(dim=-1), (unit_nD @ frame_Dr).norm(dim=-1)])


def _row_means(values_3n: Tensor, row_n: Tensor, rows: int) -> Tensor:
    """Return the mean over each row's positions, (3, rows) float64 on the CPU."""
    values, row_n = values_3n.double().cpu(), row_n.cpu()
    total = torch.zeros(len(values), rows, dtype=torch.float64).index_add_(1, row_n, values)
    return total / torch.bincount(row_n, minlength=rows)
