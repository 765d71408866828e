"""What a checkpoint may hand on to one that is made of it: its id on the hub, and the license on its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pkt.config import CheckpointSpec
from pkt.models.source import Source, locate

HANDED_ON = ("license", "license_name", "license_link", "language")


def hub_id(spec: CheckpointSpec, who: str) -> str | None:
    """Return the id of a checkpoint on the hub; None of a folder, a file or a part of a package."""
    source = locate(spec, who)
    return source.name if source.kind == "hub" else None


def address(spec: CheckpointSpec, who: str) -> str:
    """Return what transformers loads a checkpoint by: its id on the hub, or where its folder or file is."""
    source = locate(spec, who)
    return source.name if source.path is None else str(source.path.resolve())


def handed_on(spec: CheckpointSpec, who: str) -> dict[str, Any]:
    """Return license and language from the head of a checkpoint's card, where there is a card here."""
    card = _card(locate(spec, who))
    if card is None:
        return {}
    found = front_matter(card.read_text(encoding="utf-8", errors="replace"))
    return {name: found[name] for name in HANDED_ON if name in found}


def front_matter(text: str) -> dict[str, Any]:
    """Return the YAML between the first two lines of dashes of a card; nothing where there is none to be read."""
    lines = text.lstrip("\ufeff").splitlines()
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return {}
    try:
        found = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    except yaml.YAMLError:  # of a card that somebody wrote by hand
        return {}
    return found if isinstance(found, dict) else {}


def _card(source: Source) -> Path | None:
    if source.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source.name, "README.md", revision=source.revision)
        return Path(found) if isinstance(found, str) else None
    card = source.local / "README.md"  # what lies beside a GGUF file may be about something else
    return card if card.is_file() else None
