"""What LaTen's hypernetwork adds to the student, and the loss that it learns by.

    sites -> hypernetwork -> deltas -> student with the deltas -> cross-entropy
                                   └─> mean(delta^2) of every changed matrix

The student is frozen and run as it is, with the deltas as thin products beside its maps.
Shape suffixes: n neurons, D_T and D_S widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pkt.data.batching import Batch, answer_labels
from pkt.late import Tensor, torch
from pkt.models.architecture import Architecture
from pkt.models.sparse_delta import SparseDelta, applied
from pkt.models.taps import decode
from pkt.objectives import OutputHead, cross_entropy_sum
from pkt.training.meter import Meter

if TYPE_CHECKING:
    from pkt.training.hypernetwork import HyperNetwork


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
