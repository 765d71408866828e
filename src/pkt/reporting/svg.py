"""Drawings as inline SVG: text stays text, colours follow the page's theme, equal drawings give equal bytes.

Drawing -> matplotlib's SVG -> ids of its own, shades as CSS variables, short numbers, a role and a title
"""

from __future__ import annotations

import re
from html import escape
from io import StringIO

from pkt.reporting.figures import INK, MARK, QUIET, RIVAL, STUDENT, TEACHER, Drawing

# colour of a drawing -> the page's own colour, which follows its light or dark theme
SHADES = {
    INK: "currentColor",
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    TEACHER: "var(--teacher)",
    STUDENT: "var(--student)",
    QUIET: "var(--quiet)",
    MARK: "var(--mark)",
    RIVAL: "var(--rival)",
}
_STYLE = {
    "svg.fonttype": "none",  # letters, not outlines: small, selectable, in the reader's own font
    "font.family": "DejaVu Sans",  # comes with matplotlib: equal layout everywhere
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def inline(drawing: Drawing, key: str) -> str:
    """Return an `<svg>` element for a page.

    Args:
        drawing: what to show.
        key: prefix of the ids in it, unique on the page.
    """
    import matplotlib as mpl

    stream = StringIO()
    with mpl.rc_context(_STYLE | {"svg.hashsalt": drawing.name}):
        drawing.figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    text = stream.getvalue()
    box = re.search(r'viewBox="([\d.\s-]+)"', text)
    assert box is not None
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # would hold for the whole page
    body = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0]), body)
    width = round(float(box[1].split()[2]) * 96 / 72)
    return (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{key}-title" style="max-width:{width}px">'
        f'<title id="{key}-title">{escape(drawing.heading)}. {escape(drawing.alt)}</title>'
        f"{_own_ids(_squeezed(body), key)}</svg>"
    )


def _tag(tag: str) -> str:
    """Return an element's tag with the page's shades and font, and two decimals."""
    for colour, shade in SHADES.items():
        tag = tag.replace(colour, shade)
    tag = re.sub(r"font: ((?:\S+ )*?)([\d.]+px)[^;\"]*", _font, tag)
    tag = re.sub(r" ?font-family: [^;\"]*;?", "", tag)
    if "base64" in tag:
        return tag
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)


def _font(font: re.Match[str]) -> str:
    """Return the size of a font, and its weight or slant where it has any; the family is the page's."""
    words = [
        f"font-style: {word}" if word == "italic" else f"font-weight: {word}" for word in font[1].split()
    ]
    return "; ".join([f"font-size: {font[2]}", *words])


def _own_ids(body: str, key: str) -> str:
    """Keep the ids that something refers to, under a prefix: many drawings share a page."""
    used = set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda own: f' id="{key}-{own[1]}"' if own[1] in used else "", body)
    return re.sub(r"(url\(#|href=\"#)", rf"\g<1>{key}-", body)


def _squeezed(body: str) -> str:
    return re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)).strip()
