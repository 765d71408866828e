"""How alike two layers are: linear CKA, and its matrix over all layers of teacher and student.

    rows -> batches -> both decoders (taps of every layer) --+-> centred moments X^T Y, X^T X, Y^T Y --+-> CKA
                       [wide models: chosen positions] ------+-> Gram matrices X X^T, Y Y^T -----------+

Linear CKA compares states of any two widths at the same positions; rotations, offsets and scale do not change it.
Shape suffixes: L layers, N positions (n of a batch, P those that are kept), D width, E another width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

from pkt.data.batching import Batch, collate, position_counts, position_mask, sorted_batches
from pkt.data.encoding import Encoded
from pkt.errors import RequestError
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.precision import compute_device, doubled
from pkt.models.taps import Interface, decode, tap
from pkt.semantics.massive import MASSIVE, ordinary_norms

MEMORY = 2 << 30  # bytes of the numbers that are summed over the rows
ROUND_OFF = 1e-12  # a share of a state's length below which it does not vary


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """How alike the layers of two models are.

    Attributes:
        cka_LL: linear CKA, (L_T, L_S) float64 on the CPU.
        chance_LL: the mean CKA over all permutations of one side's positions, tr K tr L / ((P - 1) |K|_F |L|_F): few
            positions of states that spread over many directions score high without being alike.
        positions: P, how many positions were compared.
        left_out: how many more were not, because some layer's state is massive there.
    """

    cka_LL: Tensor
    chance_LL: Tensor
    positions: int
    left_out: int = 0


@torch.no_grad()
def compare_layers(
    teacher: Architecture,
    student: Architecture,
    encoded: Encoded,
    *,
    interface: Interface | str,
    positions: str = "all",
    read_by_teacher: Encoded | None = None,
    batch_size: int = 8,
    memory: int = MEMORY,
    massive: float | None = MASSIVE,
    listen: Callable[[int, int], None] | None = None,
) -> LayerComparison:
    """Compare every teacher layer with every student layer by linear CKA.

    CKA = |Y_c^T X_c|_F^2 / (|X_c^T X_c|_F |Y_c^T Y_c|_F) = <K, L>_F / (|K|_F |L|_F) with K = X_c X_c^T and
    L = Y_c Y_c^T, states centred over the positions, in float64. Between 0 and 1; 0 where a side does not vary.
    With fewer positions than channels it is biased upwards.

    Centred moments of all pairs are summed over the batches, which takes L_T L_S D_T D_S numbers. Where that exceeds
    `memory`, CKA is that of P positions, evenly spread over the split (floor(i N / P)): as many as have Gram matrices
    of all layers that fit (about 1900 for 40 and 32 layers). Neither batch size nor padding matters.

    Positions that are massive at any layer of either model would decide the sums of squares alone. Where there are
    any, the rows are read a second time without them.

    Args:
        teacher: a model in eval mode.
        student: a model in eval mode.
        encoded: the rows.
        interface: where in a layer the state is read, in both models.
        positions: ``answer`` (those that predict an answer token) or ``all`` (every non-padding one).
        read_by_teacher: the rows as the teacher reads them, where its tokens are others.
        batch_size: rows per forward pass.
        memory: bytes, see above.
        massive: see `pkt.semantics.massive.ordinary`.
        listen: called with rows and tokens of each batch once both models have read it; in a second reading with
            no rows.

    Raises:
        RequestError: no position.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited" (arXiv 1905.00414, eq. 5).
    """
    kept_N = _kept(encoded, positions, _capacity(teacher, student, memory))
    if len(kept_N) == 0:
        raise RequestError(
            "layers are compared on rows, and the split has none; raise its size (data.sizes)."
        )
    form = Moments if _capacity(teacher, student, memory) is None else Grams
    tell, found = listen or (lambda _rows, _tokens: None), int(kept_N.sum())
    readers = ((teacher, read_by_teacher or encoded), (student, encoded))
    add = partial(_add, readers, interface, positions, batch_size)
    norm_LN = add(sums := form(), kept_N, tell)
    kept_N[kept_N.clone()] = ordinary_norms(norm_LN[:, kept_N], massive)
    if (count := int(kept_N.sum())) < found:
        add(sums := form(), kept_N, lambda _rows, tokens: tell(0, tokens))
    cka_LL, spread_T, spread_S = sums.similarity()
    chance_LL = (spread_T[:, None] * spread_S / max(1, count - 1)).clamp_max(1.0)
    return LayerComparison(cka_LL=cka_LL, chance_LL=chance_LL, positions=count, left_out=found - count)


def _add(
    readers: tuple[tuple[Architecture, Encoded], ...],
    interface: Interface | str,
    positions: str,
    batch_size: int,
    sums: Moments | Grams,
    kept_N: Tensor,
    tell: Callable[[int, int], None],
) -> Tensor:
    """Read all rows, add the states at the kept positions, and return their norms, (L_T + L_S, N), 0 elsewhere."""
    encoded = readers[-1][1]
    starts = _starts(encoded, positions)
    norm_LN = torch.zeros(sum(arch.depth for arch, _ in readers), len(kept_N))
    for rows in sorted_batches(encoded.lengths, batch_size):
        slots = torch.cat([torch.arange(starts[row], starts[row + 1]) for row in rows])
        x_LnD, y_LnE = (
            _states(arch, collate(own, rows), interface, positions, kept_N[slots]) for arch, own in readers
        )
        sums.add(x_LnD, y_LnE.to(x_LnD.device))
        norm_LN[:, slots[kept_N[slots]]] = torch.cat([side.norm(dim=-1).cpu() for side in (x_LnD, y_LnE)])
        tell(len(rows), sum(encoded.lengths[row] for row in rows))
    return norm_LN


@dataclass(kw_only=True)
class Moments:
    """Moments of all pairs of layers, about a fixed point near the mean (so that little cancels)."""

    count: int = 0
    near: list[Tensor] = field(default_factory=list)  # (L, 1, D) per side
    sums: list[Tensor] = field(default_factory=list)  # (L, 1, D) per side
    own: list[Tensor] = field(default_factory=list)  # X^T X, (L, D, D) per side
    cross: Tensor = field(default_factory=lambda: torch.zeros(()))  # (L_T D, L_S E)

    def add(self, x_LnD: Tensor, y_LnE: Tensor) -> None:
        """Add the states of both sides at n more positions."""
        sides = [x_LnD.double(), y_LnE.double()]
        if x_LnD.shape[1] == 0:
            return
        if not self.near:
            self.near = [side.mean(1, keepdim=True) for side in sides]
            self.sums = [torch.zeros_like(side) for side in self.near]
            self.own = [side.new_zeros(side.shape[0], side.shape[2], side.shape[2]) for side in sides]
            self.cross = sides[0].new_zeros([side.shape[0] * side.shape[2] for side in sides])
        self.count += x_LnD.shape[1]
        shifted = [side - near for side, near in zip(sides, self.near, strict=True)]
        for side, total, own in zip(shifted, self.sums, self.own, strict=True):
            total += side.sum(1, keepdim=True)
            own.baddbmm_(side.mT, side)
        x_Tn, y_nS = shifted[0].mT.flatten(0, 1), shifted[1].mT.flatten(0, 1).T
        self.cross.addmm_(x_Tn, y_nS)

    def similarity(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return CKA, and tr / Frobenius norm of X_c^T X_c per layer of either side."""
        x, y = self.sums
        cross_LL = torch.stack([self._cross(layer, x_1D, y) for layer, x_1D in enumerate(x)])
        (norm_T, trace_T), (norm_S, trace_S) = (
            self._norms(near, total, own)
            for near, total, own in zip(self.near, self.sums, self.own, strict=True)
        )
        cka_LL = _ratio(cross_LL, norm_T[:, None], norm_S)
        return cka_LL.cpu(), _spread(trace_T, norm_T).cpu(), _spread(trace_S, norm_S).cpu()

    def _cross(self, layer: int, x_1D: Tensor, y_L1E: Tensor) -> Tensor:
        """Return |Y_c^T X_c|^2 of one layer (counted from 0) with every layer of the other side: one copy at a time."""
        width = x_1D.shape[1]
        own = self.cross[layer * width : (layer + 1) * width] - x_1D.T * y_L1E.flatten() / self.count
        return own.square_().view(width, *y_L1E.shape[::2]).sum((0, 2))

    def _norms(self, near_L1D: Tensor, total_L1D: Tensor, own_LDD: Tensor) -> tuple[Tensor, Tensor]:
        """Return |X_c^T X_c| (0 for a layer that varies by round-off only) and its trace, per layer."""
        centred_LDD = own_LDD - total_L1D.mT * total_L1D / self.count
        size_L, varies_L = (
            side.diagonal(dim1=1, dim2=2).sum(1).clamp_min(0) for side in (own_LDD, centred_LDD)
        )
        size_L = size_L + self.count * near_L1D.square().sum((1, 2))
        norm_L = torch.where(varies_L <= ROUND_OFF**2 * size_L, 0.0, centred_LDD.flatten(1).norm(dim=1))
        return norm_L, varies_L


@dataclass(kw_only=True)
class Grams:
    """States at the kept positions, and their Gram matrices."""

    parts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def add(self, x_LnD: Tensor, y_LnE: Tensor) -> None:
        """Keep the states of both sides at n more positions."""
        self.device = x_LnD.device
        self.parts.append((x_LnD.cpu(), y_LnE.cpu()))

    def similarity(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return CKA, and trace / Frobenius norm of X_c X_c^T per layer of either side."""
        grams = []
        for side in (0, 1):
            layers = range(len(self.parts[0][side]))
            grams.append(torch.stack([self._gram(side, layer).flatten() for layer in layers]))
        x_LM, y_LM = grams
        norm_T, norm_S = x_LM.norm(dim=1), y_LM.norm(dim=1)
        count = sum(part[0].shape[1] for part in self.parts)
        trace_T, trace_S = (gram_LM[:, :: count + 1].sum(1) for gram_LM in grams)
        cka_LL = _ratio(x_LM @ y_LM.T, norm_T[:, None], norm_S)
        return cka_LL, _spread(trace_T, norm_T), _spread(trace_S, norm_S)

    def _gram(self, side: int, layer: int) -> Tensor:
        x_PD = _centred(torch.cat([part[side][layer] for part in self.parts]).to(self.device))
        return (x_PD @ x_PD.T).cpu()


def _states(
    arch: Architecture, batch: Batch, interface: Interface | str, positions: str, keep_n: Tensor
) -> Tensor:
    """Return the states of all layers at the kept positions, row after row, (L, n, D) float32."""
    own = batch.to(arch.device)
    with tap(arch, range(1, arch.depth + 1), interface) as states:
        decode(arch, own.input_ids, own.attention_mask)
    mask_BT = position_mask(batch, positions)
    chosen_BT = mask_BT.clone()
    chosen_BT[mask_BT] = keep_n
    read = [states.pop(layer) for layer in range(1, arch.depth + 1)]
    device = compute_device(read[0])
    return torch.stack([state[chosen_BT.to(state.device)].float().to(device) for state in read])


def _starts(encoded: Encoded, positions: str) -> list[int]:
    """Return where each row's positions start in a numbering of all positions of the split, and their number."""
    return [0, *accumulate(position_counts(encoded, positions))]


def _kept(encoded: Encoded, positions: str, capacity: int | None) -> Tensor:
    """Return which of the split's N positions are compared, (N) bool."""
    count = _starts(encoded, positions)[-1]
    if capacity is None or count <= capacity:
        return torch.ones(count, dtype=torch.bool)
    kept_N = torch.zeros(count, dtype=torch.bool)
    kept_N[torch.arange(capacity) * count // capacity] = True
    return kept_N


def _capacity(teacher: Architecture, student: Architecture, memory: int) -> int | None:
    """Return how many positions fit as Gram matrices; None: moments fit, so that all positions are used."""
    wide_T, wide_S = teacher.depth * teacher.width, student.depth * student.width
    if 8 * (wide_T * wide_S + wide_T * teacher.width + wide_S * student.width) <= memory:
        return None
    return max(2, math.isqrt(memory // (8 * (teacher.depth + student.depth))))


def _centred(states_ND: Tensor) -> Tensor:
    states = doubled(states_ND.detach())
    centred = states - states.mean(0)
    return torch.where(centred.norm() <= ROUND_OFF * states.norm(), 0.0, centred)


def _spread(trace_L: Tensor, norm_L: Tensor) -> Tensor:
    """Return trace / Frobenius norm, the root of the number of directions that states spread over; 0 for none."""
    return torch.where(norm_L == 0, 0.0, trace_L / norm_L)


def _ratio(product: Tensor, norm_x: Tensor, norm_y: Tensor) -> Tensor:
    bound = norm_x * norm_y
    return torch.where(bound == 0, 0.0, product / bound)
