"""The model card that a transferred student carries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def header(
    *,
    method: str,
    adapter: bool,
    base_model: str | None,
    teacher: str | None,
    datasets: Sequence[str],
    more: Mapping[str, Any],
    name: str,
    scores: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the front matter of a card, as the hub reads it.

    Args:
        method: name of the method.
        adapter: whether the card is that of a PEFT adapter.
        base_model: id on the hub of the checkpoint that was changed, or cut; None where it is not there.
        teacher: the teacher's, the same.
        datasets: ids on the hub of what was trained on.
        more: license and language, as the card of the base model has them.
        name: of the model, in the index of results.
        scores: task -> metric and value.
    """
    found: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base_model,
        "teacher_model": teacher,
        "datasets": list(datasets),
        "tags": ["parametric-knowledge-transfer", "pkt", method],
        **more,
        "model-index": [_index(name, scores)] if scores else None,
    }
    return {name: value for name, value in found.items() if value}


def _index(name: str, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return scores in the form of the hub's index: one result per task, with a metric each."""
    results: dict[str, dict[str, Any]] = {}
    for score in scores.values():
        task, value = str(score["task"]), float(score["value"])
        entry = {
            "task": {"type": "text-generation", "name": "Text Generation"},
            "dataset": {"type": task, "name": task, "split": "test"},
            "metrics": [],
        }
        if math.isfinite(value):
            metric = {"type": str(score["metric"]), "name": str(score["metric"]), "value": round(value, 6)}
            if score.get("n"):
                metric["args"] = {"rows": int(score["n"])}
            results.setdefault(task, entry)["metrics"].append(metric)
    return {"name": name, "results": list(results.values())}


def row_counts(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how many rows of each task were scored, as a sentence; empty where that is not known."""
    counts = {str(score["task"]): int(score["n"]) for score in scores.values() if score.get("n")}
    return f"Rows scored: {', '.join(f'{task} {n:,}' for task, n in counts.items())}." if counts else ""


def model_card(
    *,
    header: Mapping[str, Any],
    method: str,
    student: str,
    teacher: str | None,
    how: str,
    recipe: Mapping[str, Any],
    command: str,
    scores: str | None,
) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        header: the front matter.
        method: name of the method.
        student: name of the checkpoint that was changed.
        teacher: name of the checkpoint that something was taken from; None where nothing was.
        how: how the folder is loaded.
        recipe: how the checkpoint was made, by name; entries without content are left out.
        command: the command line that made it.
        scores: a Markdown table of scores; None where none were measured yet.
    """
    texts = {name: _inline(content) for name, content in recipe.items()}
    source = f" from the teacher `{teacher}`." if teacher else " (no teacher was used)."
    lines = [
        "---",
        yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {student} after `{method}`",
        "",
        f"A student changed by `pkt` with `method={method}`{source}",
        how,
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
