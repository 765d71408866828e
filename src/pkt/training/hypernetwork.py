"""LaTen's hypernetwork: it maps a teacher neuron's weights to what is added to a student neuron's.

    teacher rows (n, D_T) -> g = ReLU(x A^T) B^T -> delta (n, D_S) -> student with the delta -> cross-entropy
                             one g per module (up, down, v, o)      -> mean(delta^2) of every changed matrix

The student is frozen and run as it is, with the delta as thin products beside its maps.
Shape suffixes: n neurons, D_T and D_S widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pkt.data.batching import Batch, answer_labels
from pkt.late import Tensor, functional, nn, torch
from pkt.models.architecture import Architecture
from pkt.models.sparse_delta import SparseDelta, applied
from pkt.models.taps import decode
from pkt.objectives import OutputHead, cross_entropy_sum
from pkt.training.meter import Meter

INITIAL_SPREAD = 1e-5


class HyperNetwork(nn.Module):
    """Two-layer ReLU MLPs without bias, D_T -> D_T -> D_S, one per module; float32, N(0, 1e-5^2) at the start.

    A row of the teacher is mapped along the residual stream, so one MLP serves every layer and neuron.

    Args:
        modules: which projections have one.
        teacher_width: D_T.
        student_width: D_S.
        seed: of the start, which is drawn on the CPU: the same on every machine.
    """

    def __init__(self, modules: Sequence[str], *, teacher_width: int, student_width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shapes = {"first": (teacher_width, teacher_width), "second": (student_width, teacher_width)}
        self.maps = nn.ModuleDict(
            {
                module: nn.ParameterDict(
                    {
                        name: nn.Parameter(torch.randn(shape, generator=generator) * INITIAL_SPREAD)
                        for name, shape in shapes.items()
                    }
                )
                for module in modules
            }
        )

    def forward(self, module: str, rows_nD: Tensor) -> Tensor:
        """Return g(rows) of one module, (n, D_S)."""
        weights = self.maps[module]
        assert isinstance(weights, nn.ParameterDict)
        # float32 also under autocast: the start is smaller than a bfloat16 step around anything else
        with torch.autocast(rows_nD.device.type, enabled=False):
            hidden_nD = torch.relu(functional.linear(rows_nD.float(), weights["first"]))
            return functional.linear(hidden_nD, weights["second"])


@dataclass(frozen=True, kw_only=True)
class DeltaSite:
    """One matrix of the student that changes, and the teacher's weights that decide how.

    Attributes:
        layer: student layer, from 1.
        module: projection of the student.
        index_n: rows or columns that change, each once, int64.
        sources_nD: the paired teacher neurons' weights, (n, D_T).
    """

    layer: int
    module: str
    index_n: Tensor
    sources_nD: Tensor

    def to(self, device: torch.device) -> DeltaSite:
        """Return the site on a device."""
        return replace(self, index_n=self.index_n.to(device), sources_nD=self.sources_nD.to(device))


def deltas(hypernetwork: HyperNetwork, sites: Sequence[DeltaSite]) -> list[SparseDelta]:
    """Return the delta of every site, differentiable with respect to the hypernetwork."""
    return [
        SparseDelta(
            layer=site.layer,
            module=site.module,
            index_n=site.index_n,
            values_nD=hypernetwork(site.module, site.sources_nD),
        )
        for site in sites
    ]


@dataclass(kw_only=True)
class DeltaLoss:
    """Cross-entropy of the student with the delta, plus the size of the delta.

    loss = CE + penalty * sum over changed matrices of mean(g(.)^2)

    Attributes:
        arch: the student, frozen.
        hypernetwork: what trains.
        sites: the matrices that change.
        penalty: weight of the delta's size.
        head: read-out of the student.
        autocast: run the student in bfloat16.
        meter: counts the forward tokens.
    """

    arch: Architecture
    hypernetwork: HyperNetwork
    sites: Sequence[DeltaSite]
    penalty: float
    head: OutputHead
    autocast: bool = False
    meter: Meter = field(default_factory=Meter)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of positions for the cross-entropy, and 1 for the delta's size."""
        return {"cross_entropy": int(batch.supervised.sum()), "delta_size": 1}

    def weights(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the weight of each term."""
        return {"cross_entropy": 1.0, "delta_size": self.penalty}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the sums of both terms, differentiable."""
        changes = deltas(self.hypernetwork, self.sites)
        size = torch.stack([change.values_nD.square().mean() for change in changes]).sum()
        loss, tokens = answer_loss(self.arch, self.head, batch, changes, autocast=self.autocast)
        self.meter.count(tokens, layers=self.arch.depth)
        return {"cross_entropy": loss, "delta_size": size}


def answer_loss(
    arch: Architecture, head: OutputHead, batch: Batch, changes: Sequence[SparseDelta], *, autocast: bool
) -> tuple[Tensor, int]:
    """Return the sum of a batch's answer tokens' cross-entropy under some deltas, and its number of tokens."""
    with torch.autocast(arch.device.type, torch.bfloat16, enabled=autocast), applied(arch, changes):
        final_BTD = decode(arch, batch.input_ids, batch.attention_mask)
    loss = cross_entropy_sum(final_BTD[batch.supervised], answer_labels(batch), head.read_out)
    return loss, int(batch.attention_mask.sum())
