"""What Seeking hands from stage to stage: the matrices cut out of the teacher, and the adapters' start."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pkt.attribution.windows import Cut
from pkt.mapping import LayerPair
from pkt.methods.layer_results import loaded_pairs
from pkt.methods.seeking_plan import site_of
from pkt.table import Table


@dataclass(frozen=True, kw_only=True)
class SeekingExtraction:
    """Layers kept, and the matrices of the student's shapes that were cut out of them.

    Attributes:
        pairs: i-th kept teacher layer -> i-th student layer.
        scores: sensitivity of every teacher layer.
        chosen_by: ``sensitivity`` or ``random``.
        structure: of the cuts.
        cuts: per student matrix ("3.up", "head"), where it lies in the teacher's; several for a fused map.
        matrices: the same, (outputs, inputs), in the teacher's dtype.
        seeds: rows that the sensitivity was summed over.
        skipped: rows without an answer token.
    """

    pairs: tuple[LayerPair, ...]
    scores: tuple[float, ...]
    chosen_by: str
    structure: str
    cuts: dict[str, tuple[Cut, ...]]
    matrices: dict[str, Tensor]
    seeds: int
    skipped: tuple[int, ...] = ()

    def save(self, folder: Path) -> None:
        """Write matrices and indices as safetensors and the rest as JSON."""
        header = {
            "pairs": [asdict(pair) for pair in self.pairs],
            "scores": self.scores,
            "chosen_by": self.chosen_by,
            "structure": self.structure,
            "seeds": self.seeds,
            "skipped": self.skipped,
            "cuts": {key: [[cut.caught, cut.total] for cut in cuts] for key, cuts in self.cuts.items()},
        }
        (folder / "extraction.json").write_text(json.dumps(header, indent=1), encoding="utf-8")
        places = {
            f"{key}/{i}/{side}": tensor
            for key, cuts in self.cuts.items()
            for i, cut in enumerate(cuts)
            for side, tensor in (("rows", cut.rows_n), ("columns", cut.columns_m))
        }
        save_file(places, folder / "places.safetensors")
        save_file({key: m.contiguous() for key, m in self.matrices.items()}, folder / "matrices.safetensors")

    @classmethod
    def load(cls, folder: Path) -> SeekingExtraction:
        """Read what `save` wrote."""
        header: dict[str, Any] = json.loads((folder / "extraction.json").read_text(encoding="utf-8"))
        places = load_file(folder / "places.safetensors")
        cuts = {
            key: tuple(
                Cut(
                    rows_n=places[f"{key}/{i}/rows"],
                    columns_m=places[f"{key}/{i}/columns"],
                    caught=caught,
                    total=total,
                )
                for i, (caught, total) in enumerate(sums)
            )
            for key, sums in header["cuts"].items()
        }
        return cls(
            pairs=loaded_pairs(header["pairs"]),
            scores=tuple(header["scores"]),
            chosen_by=header["chosen_by"],
            structure=header["structure"],
            cuts=cuts,
            matrices=load_file(folder / "matrices.safetensors"),
            seeds=header["seeds"],
            skipped=tuple(header["skipped"]),
        )

    def tables(self) -> list[Table]:
        """Return the kept layers with their scores, and what the cuts catch per kind of matrix."""
        return [self._layers(), self._cuts()]

    def _layers(self) -> Table:
        total = sum(self.scores) or 1.0
        rows = tuple(
            (
                str(pair.student),
                str(pair.teacher[0]),
                f"{self.scores[pair.teacher[0] - 1]:.4g}",
                f"{self.scores[pair.teacher[0] - 1] / total:.1%}",
            )
            for pair in self.pairs
        )
        title = f"teacher layers kept ({self.chosen_by}, {self.seeds} seeds)"
        columns = ("student layer", "teacher layer", "sensitivity", "share of all layers")
        return Table(title=title, columns=columns, rows=rows)

    def _cuts(self) -> Table:
        rows = []
        for role, keys in by_role(self.cuts).items():
            cuts = [cut for key in keys for cut in self.cuts[key]]
            total = sum(cut.total for cut in cuts) or 1.0
            shares = [cut.caught / cut.total for cut in cuts if cut.total > 0] or [0.0]
            rows.append(
                (
                    role,
                    str(len(cuts)),
                    " x ".join(map(str, self.matrices[keys[0]].shape)),
                    f"{sum(cut.caught for cut in cuts) / total:.1%}",
                    f"{min(shares):.1%}",
                    f"{max(shares):.1%}",
                )
            )
        columns = ("matrix", "cuts", "size", "sensitivity caught", "least", "most")
        return Table(title=f"cuts (structure={self.structure})", columns=columns, rows=tuple(rows))

    def warnings(self) -> list[str]:
        """Say which rows were left out, and whether a matrix has no sensitivity at all."""
        notes = []
        if self.skipped:
            notes.append(
                f"{len(self.skipped)} extract rows have no answer token and were left out: {list(self.skipped)[:8]}"
            )
        flat = [key for key, cuts in self.cuts.items() if any(cut.total == 0 for cut in cuts)]
        if flat:
            notes.append(f"{len(flat)} matrices have no sensitivity anywhere (for example {flat[0]})")
        return notes


@dataclass(frozen=True, kw_only=True)
class SeekingAlignment:
    """Where the student's adapters start: A (rank, inputs) and B (outputs, rank) per matrix.

    Attributes:
        factors: per student matrix ("3.up", "head"), float32.
        energy: share of the cut matrix's squared norm that its rank-r part has.
        spectrum: ``teacher`` or ``gaussian``.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    energy: dict[str, float]
    spectrum: str

    def save(self, folder: Path) -> None:
        """Write the factors as safetensors and the rest as JSON."""
        header = {"energy": self.energy, "spectrum": self.spectrum}
        (folder / "alignment.json").write_text(json.dumps(header, indent=1), encoding="utf-8")
        tensors = {
            f"{key}/{side}": t
            for key, both in self.factors.items()
            for side, t in zip("AB", both, strict=True)
        }
        save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "factors.safetensors")

    @classmethod
    def load(cls, folder: Path) -> SeekingAlignment:
        """Read what `save` wrote."""
        header: dict[str, Any] = json.loads((folder / "alignment.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "factors.safetensors")
        factors = {key: (tensors[f"{key}/A"], tensors[f"{key}/B"]) for key in header["energy"]}
        return cls(factors=factors, energy=header["energy"], spectrum=header["spectrum"])

    def tables(self) -> list[Table]:
        """Return per kind of matrix how much of it the start holds."""
        rows = []
        for role, keys in by_role(self.energy).items():
            shares = [self.energy[key] for key in keys]
            rank = self.factors[keys[0]][0].shape[0]
            mean = sum(shares) / len(shares)
            rows.append(
                (role, str(len(keys)), str(rank), f"{mean:.1%}", f"{min(shares):.1%}", f"{max(shares):.1%}")
            )
        columns = ("matrix", "adapters", "rank", "squared norm held", "least", "most")
        return [
            Table(
                title=f"start of the adapters ({self.spectrum} directions)", columns=columns, rows=tuple(rows)
            )
        ]

    def warnings(self) -> list[str]:
        """Return nothing: a start changes no function."""
        return []


def by_role(keys: Iterable[str] | Mapping[str, Any]) -> dict[str, list[str]]:
    """Group matrices by their role, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(site_of(key).role, []).append(key)
    return groups
