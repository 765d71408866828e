"""What Seeking hands from stage to stage: the matrices cut out of the teacher, and the adapters' start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pkt.attribution.windows import Cut
from pkt.late import Tensor
from pkt.mapping import LayerPair
from pkt.methods.base import Alignment, Extraction
from pkt.methods.seeking_plan import site_of
from pkt.table import Table


@dataclass(frozen=True, kw_only=True)
class SeekingExtraction(Extraction):
    """The teacher layers that are kept, and the matrices of the student's shapes that were cut out of them.

    Attributes:
        pairs: i-th kept teacher layer -> i-th student layer.
        scores: sensitivity of every teacher layer.
        chosen_by: ``sensitivity`` or ``random``.
        structure: of the cuts.
        cuts: per student matrix ("3.up", "head"), its place in the teacher's; several places for a fused map.
        matrices: per student matrix, what was cut out, (outputs, inputs), in the teacher's dtype.
        seeds: number of rows that the sensitivity was summed over.
        skipped: rows that have no answer token, and were left out.
    """

    pairs: tuple[LayerPair, ...]
    scores: tuple[float, ...]
    chosen_by: str
    structure: str
    cuts: dict[str, tuple[Cut, ...]]
    matrices: dict[str, Tensor]
    seeds: int
    skipped: tuple[int, ...] = ()

    def tables(self) -> list[Table]:
        """Return the kept layers with their scores, and the share of sensitivity in the cuts of each role."""
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
        """Warn of rows that were left out, and of matrices without any sensitivity."""
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
class SeekingAlignment(Alignment):
    """Where the student's adapters start: A (rank, inputs) and B (outputs, rank) per matrix.

    Attributes:
        factors: per student matrix ("3.up", "head"), float32.
        energy: share of the cut matrix's squared norm that its rank-r part has.
        spectrum: ``teacher`` or ``gaussian``.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    energy: dict[str, float]
    spectrum: str

    def tables(self) -> list[Table]:
        """Return, for each role, how much of its matrices' squared norm the start holds."""
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


def by_role(keys: Iterable[str] | Mapping[str, Any]) -> dict[str, list[str]]:
    """Group matrices by their role, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(site_of(key).role, []).append(key)
    return groups
