"""From a composed request to stages: build everything first, then run what the verb asks for.

Config -> strategies (refused here if wrong) -> Workbench -> Session -> stages -> table, figures, card
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pkt import console
from pkt.build import build
from pkt.config import Config
from pkt.errors import PktError, RequestError
from pkt.methods.base import Choice, Method
from pkt.methods.workbench import Workbench
from pkt.run import command_line, prepare, provenance
from pkt.searchpath import option_files
from pkt.stages import align, analyze, evaluate, extract, report, transfer
from pkt.stages.session import Session
from pkt.store import Store
from pkt.tracking import open_tracker


def run_verb(cfg: DictConfig, run_dir: Path) -> float | None:
    """Run one request.

    Args:
        cfg: the composed request.
        run_dir: this run's folder.

    Returns:
        The mean share of the gap closed where it was measured, for a sweeper that optimises it.

    Raises:
        RequestError: the request does not make sense.
        PktError: it does, and failed.
    """
    reports: list[dict[str, Any]] = []
    try:
        return _run_stages(cfg, run_dir, reports)
    except PktError:
        if not reports:  # nothing was computed: leave nothing
            _forget(run_dir, Path(str(cfg.output_dir)).resolve())
        raise


def _run_stages(cfg: DictConfig, run_dir: Path, reports: list[dict[str, Any]]) -> float | None:
    session = open_session(cfg, run_dir)
    session.reports = reports
    try:
        check_models(session.bench)
        found = VERBS[str(cfg.verb)](session)
    except BaseException:
        session.tracker.close(exit_code=1)
        raise
    session.tracker.close()
    return found if isinstance(found, float) else None


def check_models(bench: Workbench) -> None:
    """Find out whether both models are to be had, before any work.

    Raises:
        PktError: one message for all that is missing.
    """
    problems: list[PktError] = []
    for config in ("teacher_config", "student_config"):
        try:
            getattr(bench, config)
        except PktError as error:
            problems.append(error)
    if len(problems) > 1 and problems[0].exit_code == problems[1].exit_code:
        raise type(problems[0])("\n".join(str(problem) for problem in problems))
    if problems:
        raise problems[0]


def _forget(run_dir: Path, output_dir: Path) -> None:
    """Remove a run's folder, and those above it that became empty."""
    shutil.rmtree(run_dir, ignore_errors=True)
    for parent in run_dir.parents:
        if parent == output_dir.parent or not parent.is_dir() or any(parent.iterdir()):
            return
        parent.rmdir()


def open_session(cfg: DictConfig, run_dir: Path) -> Session:
    """Build what the request names; nothing is loaded and nothing is written to the store.

    Args:
        cfg: the composed request.
        run_dir: this run's folder.
    """
    method: Method = build(cfg.method)
    choice = Choice(
        mapping=build(cfg.mapping), semantics=build(cfg.semantics), objective=build(cfg.objective)
    )
    if reason := method.refusal(choice):
        raise RequestError(f"method={method.name} does not go with this request: {reason}.")
    config = cast(Config, OmegaConf.to_object(cfg))
    settle_learning_rate(config, method.name)
    device = prepare(config)
    store = Store(Path(config.output_dir) / "store")
    resolved = OmegaConf.to_yaml(cfg, resolve=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.yaml").write_text(resolved, encoding="utf-8")
    request = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    tracker = open_tracker(config, run_dir, request)
    bench = Workbench(
        config=config,
        mapping=choice.mapping,
        semantics=choice.semantics,
        objective=choice.objective,
        device=device,
        cache_dir=store.root / "converted",
        track=_track,
        log=lambda step, metrics: tracker.log(metrics, step=step, stage="transfer"),
    )
    return Session(
        bench=bench,
        method=method,
        store=store,
        run_dir=run_dir,
        tracker=tracker,
        command=command_line(),
        provenance=provenance(),
        resolved_config=resolved,
    )


def settle_learning_rate(config: Config, method: str) -> None:
    """Put the method's own learning rate in place where the request leaves it open; nothing reads the list after."""
    rates = config.optim.lr_by_method
    if config.optim.lr is None:
        config.optim.lr = rates[method] if method in rates else rates["default"]
    config.optim.lr_by_method = {}


@contextmanager
def _track(what: str, total: int) -> Iterator[Callable[[int], None]]:
    with console.progress(what, total) as bar:
        yield lambda n: bar.advance(float(n))


def _evaluate(session: Session) -> float | None:
    return report.report(session, evaluate.scores(session))


def _analyze(session: Session) -> None:
    analyze.analyze(session, every_option("semantics", session.bench.config.analyze.maps or ()))


def every_option(group: str, foreign: Iterable[str] = ()) -> dict[str, Any]:
    """Build every option of a config group of strategies, as its file has it; the user's files win.

    Args:
        group: such as ``semantics``.
        foreign: names of options in the request; those of plugins are built too.

    Raises:
        RequestError: a file that builds nothing.
    """
    files = option_files(group, foreign)
    return {
        name: build(OmegaConf.create({group: OmegaConf.load(file)})[group]) for name, file in files.items()
    }


VERBS: dict[str, Callable[[Session], Any]] = {
    "extract": lambda session: report.show_extraction(session, extract.extract(session)),
    "align": lambda session: report.show_alignment(session, align.align(session)),
    "transfer": lambda session: report.show_transfer(session, transfer.transfer(session)),
    "eval": _evaluate,
    "analyze": _analyze,
    "run": _evaluate,  # the scores need every stage before them
}
