"""Where a report goes: a folder, or a page with the other files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pkt.errors import PktError, RequestError
from pkt.manifest import write_atomically
from pkt.reporting.page import render
from pkt.reporting.page.analyses import read_analyses
from pkt.reporting.page.collect import collect
from pkt.reporting.page.model import Report
from pkt.reporting.runs import load_runs

STEM = "report"


def page_file(out: Path) -> Path:
    """Return the page's file: `out` itself where it ends in .html, else report.html in that folder.

    Raises:
        RequestError: `out` is a file of another kind.
    """
    if out.suffix == ".html":
        return out
    if out.is_file() or out.suffix in (".htm", ".md", ".tex", ".jsonl", ".pdf"):
        raise RequestError(
            f"out={out}: a folder or a file that ends in .html is expected (.md, .tex and .jsonl go beside it)."
        )
    return out / f"{STEM}.html"


def write_report(
    folders: Sequence[Path], *, out: Path, against: str | None = None, pairs: bool = False
) -> tuple[Report, list[Path]]:
    """Write a report over every run below some folders: page, Markdown, LaTeX and JSONL.

    Args:
        folders: of runs, sweeps or studies.
        out: folder, or the page's file.
        against: method or label of the arm that the others are compared with (default: `sft`, or the first arm).
        pairs: compare every arm with every other.

    Returns:
        The report and the files, the page first.

    Raises:
        RequestError: a folder is not there or holds no scores, or no run is called `against`.
        PktError: `out` cannot be written.
    """
    page = page_file(out)
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise RequestError(f"no such folder: {', '.join(missing)}; give folders that `pkt run` has left.")
    report = collect(load_runs(folders), against=against, pairs=pairs, analyses=read_analyses(folders))
    return report, write_files(report, page)


def write_files(report: Report, page: Path) -> list[Path]:
    """Write a report as a page, and as Markdown, LaTeX and JSONL beside it; return the files, the page first.

    A report without numbers of arms has no JSONL.

    Args:
        report: what they say.
        page: the page's file.

    Raises:
        PktError: a file cannot be written.
    """
    renderings = {".md": render.markdown, ".tex": render.latex, ".jsonl": render.jsonl}
    beside = {page.with_suffix(suffix): rendered(report) for suffix, rendered in renderings.items()}
    beside = {file: text for file, text in beside.items() if text}
    texts = {page: render.html(report, tuple(file.name for file in beside)), **beside}
    for file, text in texts.items():
        _write(file, text)
    return list(texts)


def write_run_page(run_dir: Path) -> Path | None:
    """Write the page of one finished run into its folder; None where no transferred student was scored.

    Args:
        run_dir: a run's folder with its `scores.json`.
    """
    try:
        runs = load_runs([run_dir])
    except RequestError:
        return None
    page = run_dir / f"{STEM}.html"
    _write(page, render.html(collect(runs, analyses=read_analyses([run_dir]))))
    return page


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    except OSError as error:
        raise PktError(
            f"cannot write {file}: {error.strerror}; give a writable place with out=..."
        ) from error
