"""The model card that a transferred student carries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """How a checkpoint was made, for its card.

    Attributes:
        method: name of the method.
        teacher, student: checkpoint names.
        fingerprints: identity of teacher and student, from their files.
        layers: student layers that were trained, from 1.
        pairs: teacher layers per student layer, as text.
        interface: supervision interface, or None where the method has no layer term.
        semantics: the alignment map and its settings, or None where the method has none.
        objective: the objective and its settings, or None where the method has one of its own.
        uses_teacher: whether anything was taken from the teacher.
        data: benchmark, tasks, rows per split, fingerprint of the rows.
        budget: trained parameters, optimiser steps, rows, forward tokens.
        command: the command line that made the checkpoint.
        provenance: versions and platform.
        adapter: whether a PEFT adapter lies beside the model folder.
    """

    method: str
    teacher: str
    student: str
    fingerprints: Mapping[str, str]
    layers: Sequence[int]
    pairs: Sequence[str]
    interface: str | None
    semantics: Mapping[str, Any] | None
    objective: Mapping[str, Any] | None
    uses_teacher: bool
    data: Mapping[str, Any]
    budget: Mapping[str, Any]
    command: str
    provenance: Mapping[str, Any]
    adapter: bool
    seed: int = 0


def model_card(facts: CardFacts, *, scores: str | None) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        facts: how it was made.
        scores: a Markdown table of scores; None where none were measured yet.
    """
    header = {
        "library_name": "transformers",
        "tags": ["parametric-knowledge-transfer", "pkt", facts.method],
        "base_model": facts.student,
    }
    teacher = f"`{facts.teacher}` (fingerprint `{facts.fingerprints['teacher']}`)"
    recipe = {
        "student": f"`{facts.student}` (fingerprint `{facts.fingerprints['student']}`)",
        "teacher": teacher if facts.uses_teacher else "",
        "layer pairs (teacher → student, from 1)": ", ".join(facts.pairs),
        "supervision interface": facts.interface,
        "alignment map": _inline(facts.semantics),
        "objective": _inline(facts.objective),
        "student layers trained": ", ".join(map(str, facts.layers)) or "none",
        "data": _inline(facts.data),
        "budget": _inline(facts.budget),
        "seed": str(facts.seed),
        "made by": _inline(facts.provenance),
    }
    source = f" from the teacher `{facts.teacher}`." if facts.uses_teacher else " (no teacher was used)."
    beside = ", and the PEFT adapter lies beside this folder in `adapter/`." if facts.adapter else "."
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).strip(),
        "---",
        "",
        f"# {facts.student} after `{facts.method}`",
        "",
        f"A student changed by `pkt` with `method={facts.method}`{source}",
        f"Load it with `AutoModelForCausalLM.from_pretrained(<this folder>)`; the update is merged in{beside}",
        "",
        "## Recipe",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in recipe.items() if text),
        "",
        "## Scores",
        "",
        scores or "Not measured yet: `pkt eval` with the same settings fills this in.",
        "",
        "## Command",
        "",
        "```",
        facts.command,
        "```",
        "",
    ]
    return "\n".join(lines)


def _inline(values: Mapping[str, Any] | None) -> str:
    texts = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in (values or {}).items()
    }
    return ", ".join(f"{name} {text}" for name, text in texts.items())
