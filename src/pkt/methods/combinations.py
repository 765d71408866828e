"""What goes with what: every method with every option of the strategies that it reads.

methods x options of mapping, semantics, objective -> Method.refusal -> a table per group, and the reasons
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pkt.methods.base import Choice, Method

GROUPS = {"mapping": ("mapping",), "semantics": ("semantics",), "objective": ("layer", "output")}
GOES, IGNORED = "✓", "–"


@dataclass(kw_only=True)
class Combinations:
    """Tables of what goes with what.

    Attributes:
        methods: each with the strategies that its preset chooses.
        options: group -> option -> strategy.
        reasons: why combinations are refused, in the order of their numbers (from 1).
    """

    methods: Mapping[str, tuple[Method, Choice]]
    options: Mapping[str, Mapping[str, Any]]
    reasons: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return one table per group, and the numbered reasons."""
        tables = [line for group in self.options for line in ("", f"## `{group}`", "", *self._table(group))]
        demands = [
            f"| `{name}` | {method.demands or 'any pair with one vocabulary'} |"
            for name, (method, _) in self.methods.items()
        ]
        models = ["", "## Models", "", "| | what the models have to be like |", "|---|---|", *demands]
        reasons = [f"{number}. {reason}" for number, reason in enumerate(self.reasons, start=1)]
        return "\n".join([*tables, *models, "", "## Reasons", "", *reasons, ""])

    def _table(self, group: str) -> list[str]:
        names = list(self.options[group])
        lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "|---|" + ":---:|" * len(names)]
        for method in self.methods:
            cells = [self.cell(method, group, name) for name in names]
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
        return lines

    def cell(self, method: str, group: str, option: str) -> str:
        """Return ✓ (goes), – (not read) or the number of the reason why not.

        Args:
            method: whose preset is changed in one place.
            group: the place.
            option: what is put there.
        """
        built, preset = self.methods[method]
        if not set(GROUPS[group]) & set(built.uses):
            return IGNORED
        reason = built.refusal(replace(preset, **{group: self.options[group][option]}))
        if reason is None:
            return GOES
        if reason not in self.reasons:
            self.reasons.append(reason)
        return str(self.reasons.index(reason) + 1)
