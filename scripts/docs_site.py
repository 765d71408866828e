"""Hooks of mkdocs: pages that lie outside docs/, pages made of docstrings, and links that lead out of the site.

README.md -> index.md      SECURITY.md, CONTRIBUTING.md, CHANGELOG.md, examples/README.md -> pages of the site
docstrings -> api.md       links to code, configs and examples -> their text
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "SECURITY.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "examples/README.md": "examples.md",
}
API = "# pkt from Python\n\n" + "\n\n".join(
    f"## {title}\n\n::: {module}\n    options: {{members_order: source, show_root_heading: false}}"
    for title, module in (
        ("Verbs", "pkt.api"),
        ("What they leave", "pkt.results"),
        ("The parts", "pkt.blocks"),
    )
)
_LINK = re.compile(r"(!?\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\])\(([^)#\s]*)(#[^)\s]+)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    for source, place in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=_led(text, posixpath.dirname(source), place)))
    files.append(File.generated(config, "api.md", content=API))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the links of pages in docs/ to pages of the site."""
    place = page.file.src_uri
    if place in PAGES.values() or place == "api.md":
        return markdown
    return _led(markdown, posixpath.join("docs", posixpath.dirname(place)), place)


def _led(text: str, folder: str, place: str) -> str:
    """Return a text whose links hold on the site.

    Args:
        text: Markdown.
        folder: of the repository that its links are relative to.
        place: of the page on the site.
    """

    def link(found: re.Match[str]) -> str:
        shown, path, anchor = found[1], found[2], found[3] or ""
        if shown.startswith("[!["):  # a picture that is a link
            shown = f"[{_LINK.sub(link, shown[1:-1])}]"
        if shown.startswith("!") and path.startswith("https:"):
            return ""  # the site fetches nothing
        if not path or re.match(r"[a-z]+:", path):
            return f"{shown}({path}{anchor})"
        inside = posixpath.normpath(posixpath.join(folder, path))
        if inside in PAGES:
            target = PAGES[inside]
        elif inside.startswith("docs/") and (ROOT / inside).is_file():
            target = inside.removeprefix("docs/")
        else:  # code, configs, folders
            return shown[1:-1] if not shown.startswith("!") else ""
        return f"{shown}({posixpath.relpath(target, posixpath.dirname(place) or '.')}{anchor})"

    return _LINK.sub(link, text)
