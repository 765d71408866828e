"""Seeking: the teacher's most sensitive sub-matrices choose the subspace that the student's adapters start in.

Idea: |weight x gradient| over a few seed rows ranks the teacher's layers and, in each matrix, the window of the
student's shape; its leading singular directions become LoRA's start, what they add is taken off the student's
weights, and LoRA then trains on the labels. At step 0 the student is unchanged: only the subspace is new.

Reference: Zhong, An, Li, Lin, Chen, Guo, "Seeking Neural Nuggets: Knowledge Transfer in Large Language Models
from a Parametric Perspective" (ICLR 2024, arXiv 2310.11451).
Deviations: sensitivity is streamed to disk (same sums, memory of about one matrix); windows by prefix sums (same
maximum); a fused q/k/v map (GPT-2) gets a window in each third; one shared tensor for embedding and head counts
both of its gradients in a tied teacher, and a tied student takes no adapters there.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pkt.attribution.disk_sums import DiskSums
from pkt.attribution.sensitivity import parameter_name, sensitivity
from pkt.attribution.windows import Cut, Structure, cut
from pkt.data.batching import collate
from pkt.late import Tensor, torch
from pkt.mapping import in_order, top_layers
from pkt.methods.base import Choice, Provides, Reads, Transferred, training
from pkt.methods.readings import read_by
from pkt.methods.seeking_plan import blocks, check_pair_shapes, counterpart, site_key, site_of
from pkt.methods.seeking_results import SeekingAlignment, SeekingExtraction
from pkt.methods.tuning import TrainingMethod, tune
from pkt.methods.workbench import Workbench
from pkt.models.architecture import Architecture
from pkt.models.load import declared_roles, skeleton
from pkt.models.surgery import Site, matrix_OI, oriented, site_path, sites
from pkt.settings import setting, undecisive
from pkt.training.lora_start import LoraStart, seeking_factors
from pkt.training.trainable import Update

RECIPES = {
    "laten": ["up", "down", "v", "o"],
    "original": ["q", "k", "v", "o", "gate", "up", "down", "embed", "head"],
}


@dataclass(frozen=True, kw_only=True)
class Seeking(TrainingMethod):
    """The method's own settings.

    Attributes:
        name: how tables call it.
        recipe: which matrices: ``laten`` (up down v o), ``original`` (q k v o gate up down, embedding and head),
            or None: `update.targets`.
        layers: which teacher layers are kept: those of highest ``sensitivity``, or ``random`` ones (a control).
        structure: which part of a matrix is kept, see `pkt.attribution.windows.cut`.
        spectrum: ``teacher``, or ``gaussian``: random directions with the same singular values (a control).
        update: rank, alpha and dropout of the adapters; has to be ``lora``.

    Raises:
        ValueError: full fine-tuning, or targets beside a recipe that says otherwise.
    """

    results: ClassVar[Mapping[str, type[Any]]] = {"extract": SeekingExtraction, "align": SeekingAlignment}
    demands = (
        "student no wider in any cut matrix and no deeper than the teacher; separate q, k and v maps, or "
        "GPT-2's fused one; untied student for recipe=original"
    )

    name: str = undecisive("seeking")
    recipe: Literal["laten", "original"] | None = undecisive("laten")  # its targets decide
    layers: Literal["sensitivity", "random"] = "sensitivity"
    structure: Structure = "window"
    spectrum: Literal["teacher", "gaussian"] = setting("teacher", decides="align")
    update: Update = setting(factory=lambda: Update(dropout=0.05), decides="transfer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update.kind != "lora":
            raise ValueError(
                f"update.kind={self.update.kind}: Seeking starts adapters; use update.kind=lora (or method=sft)"
            )
        allowed = [RECIPES["laten"], self.targets]  # the first is the default, which nobody chose
        if self.recipe is not None and self.update.targets not in allowed:
            raise ValueError(
                f"update.targets={self.update.targets} beside recipe={self.recipe}, which means "
                f"{self.targets}; set recipe to null to name the matrices yourself"
            )

    @property
    def targets(self) -> list[str]:
        """Roles that get an adapter."""
        return self.update.targets if self.recipe is None else RECIPES[self.recipe]

    @property
    def provides(self) -> Provides:
        """Nothing of a teacher: its training only starts from the teacher's matrices."""
        return Provides(trains_head="head" in self.targets)

    def reads(self, stage: str, choice: Choice) -> Reads:
        """Name what each stage reads; random controls are drawn by the seed."""
        if stage == "transfer":
            return training(self.update)
        if stage == "extract":
            drawn = ("seed",) if "random" in (self.layers, self.structure) else ()
            return Reads(rows=("extract",), config=("method.targets", *drawn))
        drawn = ("seed",) if self.spectrum == "gaussian" else ()
        return Reads(config=("method.update.rank", "method.update.alpha", *drawn))

    def extract(self, bench: Workbench, scratch: Path | None) -> SeekingExtraction:
        """Sum the sensitivity over the extract rows, keep the best layers, and cut the best windows."""
        assert scratch is not None, "the sums are kept on disk"
        model = bench.config.model
        shapes = skeleton(bench.student_config, declared_roles(model.student, model.teacher))
        own = skeleton(bench.teacher_config, model.teacher.roles)
        check_pair_shapes(own, shapes, self.targets, self.update.rank, self.update.alpha)
        summed = self._sensitivity(bench, scratch)
        arch, seed = bench.teacher.arch, bench.config.seed
        scores = summed.layer_scores(arch)
        kept = self._kept(scores, shapes.depth, seed)
        cuts: dict[str, tuple[Cut, ...]] = {}
        matrices: dict[str, Tensor] = {}
        wanted = sites(shapes, range(1, shapes.depth + 1), self.targets)
        with bench.track("cuts", len(wanted)) as advance:
            for path, site in wanted.items():
                rows, columns = matrix_OI(shapes.model.get_submodule(path)).shape
                key = site_key(site)
                cuts[key], matrices[key] = self._cut(
                    arch, summed, counterpart(site, kept), (rows, columns), _seed_of(key, seed)
                )
                advance(1)
        return SeekingExtraction(
            pairs=in_order(kept),
            scores=scores,
            chosen_by=self.layers,
            structure=self.structure,
            cuts=cuts,
            matrices=matrices,
            seeds=summed.done - len(summed.skipped),
            skipped=tuple(summed.skipped),
        )

    def _sensitivity(self, bench: Workbench, folder: Path) -> DiskSums:
        encoded = read_by(bench, "teacher", "extract")
        bench.release("student")  # only its tokenizer was needed: the teacher has the memory for itself
        arch = bench.teacher.arch
        paths = sites(arch, range(1, arch.depth + 1), self.targets)
        modules = [arch.model.get_submodule(path) for path in paths]
        # all rows count as cost, also those that an earlier, interrupted process went through
        bench.teacher_meter.count(sum(encoded.lengths), layers=arch.depth)
        with bench.track("sensitivity", len(encoded.lengths)) as advance:
            # one process sums, for the files are all processes'; the others find every row in them
            return bench.processes.in_turn(
                lambda: sensitivity(
                    arch,
                    lambda index: collate(encoded, [index]).to(arch.device),
                    len(encoded.lengths),
                    keep={parameter_name(arch, module) for module in modules},
                    folder=folder,
                    save_every=bench.config.optim.save_every,
                    listen=advance,
                )
            )

    def _kept(self, scores: Sequence[float], count: int, seed: int) -> list[int]:
        """Return the kept teacher layers (from 1), ascending; the lower one among equals."""
        if self.layers == "sensitivity":
            return list(top_layers(scores, count))
        generator = torch.Generator().manual_seed(seed)
        return sorted(int(i) + 1 for i in torch.randperm(len(scores), generator=generator)[:count])

    def _cut(
        self, arch: Architecture, summed: DiskSums, site: Site, shape: tuple[int, int], seed: int
    ) -> tuple[tuple[Cut, ...], Tensor]:
        """Cut one teacher matrix to a shape (outputs, inputs); a fused map part by part."""
        module = arch.model.get_submodule(site_path(arch, site))
        score_OI = oriented(module, summed.matrix(parameter_name(arch, module)))
        count = blocks(arch, site.role)
        part = (shape[0] // count, shape[1])
        scores, weights = score_OI.chunk(count), matrix_OI(module).detach().chunk(count)
        cuts = tuple(
            cut(score, part, structure=self.structure, seed=seed + i) for i, score in enumerate(scores)
        )
        matrix_OI_ = torch.cat([one.of(weight) for one, weight in zip(cuts, weights, strict=True)])
        return cuts, matrix_OI_.cpu().contiguous()

    def align(
        self, bench: Workbench, extraction: SeekingExtraction, scratch: Path | None
    ) -> SeekingAlignment:
        """Factor each cut matrix at the adapters' rank."""
        update, seed = self.update, bench.config.seed
        factors, energy = dict[str, tuple[Tensor, Tensor]](), dict[str, float]()
        with bench.track("singular directions", len(extraction.matrices)) as advance:
            for key, matrix in extraction.matrices.items():
                own = _seed_of(key, seed) if self.spectrum == "gaussian" else 0
                A_rI, B_Or = seeking_factors(
                    matrix, update.rank, update.alpha, spectrum=self.spectrum, seed=own
                )
                held = (B_Or * (update.alpha / update.rank)).square().sum()  # rows of A are orthonormal
                energy[key] = float(held / matrix.float().square().sum().clamp_min(1e-30))
                factors[key] = (A_rI, B_Or)
                advance(1)
        return SeekingAlignment(factors=factors, energy=energy, spectrum=self.spectrum)

    def transfer(self, bench: Workbench, alignment: SeekingAlignment, scratch: Path | None) -> Transferred:
        """Train adapters from that start on the labels."""
        arch = bench.student.arch
        start = {site_path(arch, site_of(key)): both for key, both in alignment.factors.items()}
        return tune(
            bench,
            None,
            update=replace(self.update, targets=self.targets),
            layers=list(range(1, arch.depth + 1)),
            snapshots=scratch,
            start=LoraStart(factors=start),
        )


def _seed_of(key: str, seed: int) -> int:
    """Return the seed of one matrix, the same on every machine."""
    return zlib.crc32(f"{seed}/{key}".encode())
