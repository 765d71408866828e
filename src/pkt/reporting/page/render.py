"""A `Report` as a page, as Markdown, as LaTeX and as lines of JSON, all with the same rows."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pkt import __version__
from pkt.reporting.figures import Drawing
from pkt.reporting.latex import HEADER, escaped, latex_table
from pkt.reporting.page.report import Report, Topic
from pkt.reporting.svg import inline
from pkt.table import Table

_TEMPLATES = Path(__file__).parents[1] / "templates"
SIGN = '<meta name="generator" content="pkt">'  # in every page
_NUMERIC = re.compile(r"^(≈ )?[-+–]?[\d(\[]|^(–|nan)?$")


def html(report: Report, beside: tuple[str, ...] = ()) -> str:
    """Return one self-contained page: nothing fetched, and no script but the one that copies.

    Args:
        report: its content.
        beside: names of the files with the same numbers that lie beside it.
    """
    # autoescape: what models write is shown as text, whatever it is
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"numeric": _numeric, "svg": _svg, "digest": _digest}
    page = templates.get_template("page.html")
    script = Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8"))  # ours, not what models write
    return page.render(report=report, beside=beside, version=__version__, sign=Markup(SIGN), script=script)


def _digest(script: str) -> str:
    """Return what a page's policy calls the one script that it lets run."""
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def _numeric(table: Table) -> list[bool]:
    """Return which columns hold numbers and are aligned right."""
    columns = zip(*table.rows, strict=True)
    return [all(_NUMERIC.match(cell) for cell in cells) and any(cells) for cells in columns]


def _svg(drawing: Drawing, key: str) -> Markup:
    return Markup(inline(drawing, key))  # built by `svg`, which escapes


def markdown(report: Report) -> str:
    """Return what a README can take: sentences and tables, without pictures."""
    lines = [f"# {report.title}", "", report.lead, ""]
    lines += [*(f"- {told}" for told in report.left_out), ""] if report.left_out else []
    for section in report.sections:
        lines += [f"## {section.title}", ""]
        for topic in _kept(section.topics):
            lines += [f"### {topic.title}", ""]
            lines += [f"- {sentence}" for sentence in topic.sentences]
            lines += [""] if topic.sentences else []
            for table in topic.tables:
                lines += [f"{_sentence(table.title)}", "", table.markdown(), ""]
    return "\n".join(lines)


def latex(report: Report) -> str:
    """Return the same tables for a paper."""
    lines = [HEADER, *(f"% {escaped(told)}\n" for told in report.left_out)]
    for section in report.sections:
        lines.append(f"% {escaped(section.title)}\n")
        lines += [f"{latex_table(table)}\n" for topic in _kept(section.topics) for table in topic.tables]
    return "\n".join(lines)


def jsonl(report: Report) -> str:
    """Return one JSON object per arm and task; what is not known is null."""
    lines = (
        json.dumps({key: _plain(value) for key, value in asdict(number).items()}, ensure_ascii=False)
        for section in report.sections
        for number in section.numbers
    )
    return "".join(f"{line}\n" for line in lines)


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kept(topics: tuple[Topic, ...]) -> Iterator[Topic]:
    return (topic for topic in topics if topic.kept and topic)


def _sentence(title: str) -> str:
    return f"{title[:1].upper()}{title[1:]}."
