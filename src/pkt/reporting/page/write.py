"""Write reports: those that `pkt report runs=a,b ...` asks for, and those at the end of a run or a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pkt import console
from pkt.config import ReportConfig
from pkt.durable import write_atomically
from pkt.errors import PktError, RequestError
from pkt.reporting.page import render
from pkt.reporting.page.analyses import read_analyses
from pkt.reporting.page.collect import collect
from pkt.reporting.page.report import Report
from pkt.reporting.runs import find_runs, load_runs
from pkt.run_files import PAGE

STEM = Path(PAGE).stem
_RENDERINGS = {".md": render.markdown, ".tex": render.latex, ".jsonl": render.jsonl}


def answer_request(cfg: DictConfig) -> None:
    """Write the report that `pkt report` asks for, print its tables, and say where it is.

    Args:
        cfg: the composed request, typed by `pkt.config.ReportConfig`.

    Raises:
        RequestError: `runs` is not set, names no folder with scores, or `against` no arm.
        OmegaConfBaseException: a key that `+key=` forced in.
    """
    typed: Any = OmegaConf.merge(
        OmegaConf.structured(ReportConfig), OmegaConf.create(OmegaConf.to_container(cfg))
    )
    if OmegaConf.is_missing(typed, "runs") or not typed.runs:
        raise RequestError("not set: runs; add runs=<folder>[,<folder>...], folders that `pkt run` has left")
    names = [typed.runs] if isinstance(typed.runs, str) else list(typed.runs)
    folders = [Path(str(name)).expanduser() for name in names]
    beside = folders[0] if len(folders) == 1 else Path(STEM)
    out = beside if typed.out is None else Path(typed.out).expanduser()
    report, files = write_report(folders, out=out, against=typed.against, pairs=typed.pairs)
    for section in report.sections:
        console.table(f"{section.title}: {section.table.title}", section.table.columns, section.table.rows)
    for told in report.left_out:
        console.note(told)
    for file in files:
        console.say(f"{'report':<11}{file}")


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
        RequestError: a folder is not there or holds no scores, no run is called `against`, `out` is another file, or
            files that are not of a report would be overwritten.
        PktError: `out` cannot be written.
    """
    if out.suffix != ".html" and (out.is_file() or out.suffix in (".htm", ".md", ".tex", ".jsonl", ".pdf")):
        raise RequestError(
            f"out={out}: a folder or a file that ends in .html is expected (.md, .tex and .jsonl go beside it)."
        )
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise RequestError(f"no such folder: {', '.join(missing)}; give folders that `pkt run` has left.")
    page = out if out.suffix == ".html" else out / PAGE
    _check_replaceable(page)
    found = find_runs(folders)
    report = collect(
        found.runs, against=against, pairs=pairs, analyses=read_analyses(folders), left_out=found.left_out
    )
    return report, write_files(report, page)


def _check_replaceable(page: Path) -> None:
    """Refuse to overwrite a file that is not of an earlier report: the page tells whose the files of its name are.

    Raises:
        RequestError: such a file is in the way.
    """
    text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    known = [page, *map(page.with_suffix, _RENDERINGS)] if render.SIGN in text else []
    ours = [file for file in known if file == page or f'<a href="{file.name}">' in text]
    there = [file for suffix in (page.suffix, *_RENDERINGS) if (file := page.with_suffix(suffix)).exists()]
    if foreign := [file for file in there if file not in ours]:
        raise RequestError(
            f"{foreign[0]} is there, and not of an earlier report of pkt: give another place with out=..., "
            "or move the file"
        )


def write_files(report: Report, page: Path) -> list[Path]:
    """Write a report as a page, and as Markdown, LaTeX and JSONL beside it; return the files, the page first.

    A report without numbers of arms has no JSONL.

    Args:
        report: its content.
        page: the page's file.

    Raises:
        PktError: a file cannot be written.
    """
    beside = {page.with_suffix(suffix): rendered(report) for suffix, rendered in _RENDERINGS.items()}
    beside = {file: text for file, text in beside.items() if text}
    texts = {page: render.html(report, tuple(file.name for file in beside)), **beside}
    for file, text in texts.items():
        _write(file, text)
    return list(texts)


def write_run_page(run_dir: Path) -> Path:
    """Write the page of one finished run into its folder.

    Args:
        run_dir: a run's folder, with a transferred student's scores in its `scores.json`.
    """
    page = run_dir / PAGE
    text = render.html(collect(load_runs([run_dir]), analyses=read_analyses([run_dir])))
    _write(page, text, "free some, or set output_dir to a writable place")
    return page


def _write(file: Path, text: str, remedy: str = "give a writable place with out=...") -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    except OSError as error:
        raise PktError(f"cannot write {file}: {error.strerror}; {remedy}") from error
