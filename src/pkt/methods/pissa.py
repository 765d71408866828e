"""PiSSA: LoRA that starts from the leading singular directions of the student's own weights.

Idea: each adapted matrix is split into its rank-r part, which trains as an adapter, and the rest, which is
frozen; the student is unchanged at step 0, and training moves what matters most in each matrix first.

Reference: Meng, Wang, Zhang, "PiSSA: Principal Singular Values and Singular Vectors Adaptation" (NeurIPS 2024,
arXiv 2404.02948). Deviations: none; the frozen rest is kept as W and the starting adapter that is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pkt.errors import RequestError
from pkt.late import Tensor
from pkt.methods.base import Transferred
from pkt.methods.layer_results import LayerAlignment
from pkt.methods.sft import Sft
from pkt.methods.tuning import tune
from pkt.methods.workbench import Workbench
from pkt.models.surgery import lora_config, matrix_OI, sites
from pkt.settings import undecisive
from pkt.training.lora_start import LoraStart, pissa_factors


@dataclass(frozen=True, kw_only=True)
class Pissa(Sft):
    """Supervised fine-tuning of adapters that start from the student's own spectrum.

    Attributes:
        name: how tables call it.
        update: rank, alpha, targets and dropout of the adapters; has to be ``lora``.
        layers: layer numbers, from 1; None trains in every layer.

    Raises:
        ValueError: full fine-tuning.
    """

    demands = "untied student where targets name embed or head"

    name: str = undecisive("pissa")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update.kind != "lora":
            raise ValueError(
                f"update.kind={self.update.kind}: PiSSA starts adapters; use update.kind=lora (or method=sft)"
            )

    def transfer(
        self, bench: Workbench, alignment: LayerAlignment | None, scratch: Path | None
    ) -> Transferred:
        """Split the student's matrices, and train the adapters."""
        layers = self.trained(bench)
        start = self._start(bench, layers)
        return tune(bench, None, update=self.update, layers=layers, snapshots=scratch, start=start)

    def _start(self, bench: Workbench, layers: list[int]) -> LoraStart:
        arch, update = bench.student.arch, self.update
        lora_config(arch, layers, update.targets, rank=update.rank, alpha=update.alpha)  # refuses tied ends
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        found = sites(arch, layers, update.targets)
        with bench.track("singular directions", len(found)) as advance:
            for path in found:
                weight_OI = matrix_OI(arch.model.get_submodule(path))
                self._check_rank(path, weight_OI)
                factors[path] = pissa_factors(weight_OI, update.rank, update.alpha)
                advance(1)
        return LoraStart(factors=factors)

    def _check_rank(self, path: str, weight_OI: Tensor) -> None:
        most = min(weight_OI.shape)
        if self.update.rank > most:
            raise RequestError(
                f"method.update.rank={self.update.rank} is more than {path} "
                f"({weight_OI.shape[0]} x {weight_OI.shape[1]}) can have; allowed are ranks from 1 to {most}."
            )
