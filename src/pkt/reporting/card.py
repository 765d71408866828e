"""The model card that a transferred student carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml


def model_card(
    *,
    method: str,
    student: str,
    teacher: str | None,
    adapter: bool,
    recipe: Mapping[str, Any],
    command: str,
    scores: str | None,
) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        method: name of the method.
        student: name of the checkpoint that was changed.
        teacher: name of the checkpoint that something was taken from; None where nothing was.
        adapter: whether a PEFT adapter lies beside the model folder.
        recipe: how the checkpoint was made, by name; entries without content are left out.
        command: the command line that made it.
        scores: a Markdown table of scores; None where none were measured yet.
    """
    header = {
        "library_name": "transformers",
        "tags": ["parametric-knowledge-transfer", "pkt", method],
        "base_model": student,
    }
    texts = {name: _inline(content) for name, content in recipe.items()}
    source = f" from the teacher `{teacher}`." if teacher else " (no teacher was used)."
    beside = ", and the PEFT adapter lies beside this folder in `adapter/`." if adapter else "."
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).strip(),
        "---",
        "",
        f"# {student} after `{method}`",
        "",
        f"A student changed by `pkt` with `method={method}`{source}",
        f"Load it with `AutoModelForCausalLM.from_pretrained(<this folder>)`; the update is merged in{beside}",
        "",
        "## Recipe",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in texts.items() if text),
        "",
        "## Scores",
        "",
        scores or "Not measured yet: `pkt eval` with the same settings fills this in.",
        "",
        "## Command",
        "",
        "```",
        command,
        "```",
        "",
    ]
    return "\n".join(lines)


def _inline(content: Any) -> str:
    """Return text as it is, and settings by name as ``rank 8, target "all"``."""
    if not isinstance(content, Mapping):
        return str(content or "")
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in content.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())
