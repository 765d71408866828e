"""The model card that a transferred student carries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card tells.

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
    extra: Mapping[str, Any] = field(default_factory=dict)


def model_card(facts: CardFacts, *, scores: str | None) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        facts: what was done.
        scores: a Markdown table of scores; None says that none were measured yet.
    """
    header = {
        "library_name": "transformers",
        "tags": ["parametric-knowledge-transfer", "pkt", facts.method],
        "base_model": facts.student,
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).strip(),
        "---",
        "",
        f"# {facts.student} after `{facts.method}`",
        "",
        f"A student changed by `pkt` with `method={facts.method}`"
        + (f" from the teacher `{facts.teacher}`." if facts.uses_teacher else " (no teacher was used)."),
        "Load it with `AutoModelForCausalLM.from_pretrained(<this folder>)`; the update is merged in"
        + (", and the PEFT adapter lies beside this folder in `adapter/`." if facts.adapter else "."),
        "",
        "## Recipe",
        "",
        "| | |",
        "|---|---|",
        f"| student | `{facts.student}` (fingerprint `{facts.fingerprints['student']}`) |",
    ]
    if facts.uses_teacher:
        lines.append(f"| teacher | `{facts.teacher}` (fingerprint `{facts.fingerprints['teacher']}`) |")
    if facts.pairs:
        lines.append(f"| layer pairs (teacher → student, from 1) | {', '.join(facts.pairs)} |")
    if facts.interface:
        lines.append(f"| supervision interface | {facts.interface} |")
    if facts.semantics:
        lines.append(f"| alignment map | {_inline(facts.semantics)} |")
    if facts.objective:
        lines.append(f"| objective | {_inline(facts.objective)} |")
    lines += [
        f"| student layers trained | {', '.join(map(str, facts.layers)) or 'none'} |",
        f"| data | {_inline(facts.data)} |",
        f"| budget | {_inline(facts.budget)} |",
        f"| seed | {facts.seed} |",
        f"| made by | {_inline(facts.provenance)} |",
        "",
        "## Scores",
        "",
        scores
        if scores is not None
        else "Not measured yet: `pkt eval` with the same settings fills this in.",
        "",
        "## Command",
        "",
        "```",
        facts.command,
        "```",
        "",
    ]
    return "\n".join(lines)


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {json.dumps(value) if not isinstance(value, str) else value}"
        for name, value in values.items()
    )
