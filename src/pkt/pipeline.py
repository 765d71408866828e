"""From a composed request to stages: build everything first, then run what the verb asks for.

Config -> strategies (refused here if wrong) -> Workbench -> Plan -> stages -> table, figures, card
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pkt import places, remembered, secrets
from pkt.build import build, settle_by_method
from pkt.config import Config, MeetingConfig, OptimConfig, TrackerConfig
from pkt.config_files import read_option
from pkt.durable import write_atomically
from pkt.errors import PktError, RequestError
from pkt.late import torch
from pkt.methods.base import Choice, Method, choice_of
from pkt.methods.combinations import check, known_pairs
from pkt.methods.layerwise import no_map
from pkt.methods.workbench import Workbench
from pkt.models.precision import too_slow
from pkt.objectives import Objective
from pkt.planner import Plan, Planner
from pkt.plugins import origins
from pkt.processes import connect
from pkt.progress import progress
from pkt.run_files import METRICS, REQUEST
from pkt.searchpath import option_files
from pkt.semantics import closed_form
from pkt.stages import align, answer, briefing, evaluate, extract, identity, record, report, transfer, unread
from pkt.stages.session import Job, Session
from pkt.store import Store, store_root
from pkt.surroundings import choices, command_line, device_type, prepare, provenance, seed_rows
from pkt.tracking import open_tracker
from pkt.tracking.open import is_first

Stage = Callable[[Job], Mapping[str, Any]]
"""Writes a result into the job's folder, and returns what its manifest should say."""


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
    remembered.begin()
    try:
        if cfg.verb == "doctor":
            from pkt.stages import doctor

            bench, method = request(cfg)
            check_models(bench)
            reports.append({"stage": "doctor"})  # what it finds is kept, also where something is wrong
            doctor.show(bench, method, run_dir)
            return None
        if cfg.verb == "rows":
            from pkt.stages import rows

            rows.show(request(cfg)[0], run_dir)
            return None
        return _run_stages(cfg, run_dir, reports)
    except PktError:
        if not reports:  # nothing was computed: leave nothing
            remembered.forget()
            places.begun(run_dir).clear()
        raise


def _run_stages(cfg: DictConfig, run_dir: Path, reports: list[dict[str, Any]]) -> float | None:
    session = open_session(cfg, run_dir)
    session.reports = reports
    try:
        check_models(session.bench)
        check_pairs(session)
        found = VERBS[str(cfg.verb)](session)
        record.keep(session)
    except BaseException:
        session.tracker.close(exit_code=1)
        raise
    session.tracker.close()
    return found


def run_plan(session: Session, plan: Plan, **more: Stage) -> None:
    """Make sure that every result of a plan is in the store.

    Args:
        session: the request.
        plan: its steps.
        more: stages beside those of `STAGES`, by name.
    """
    session.plan = plan
    check_precision(session)
    for step in plan:
        result = session.obtain(step, (STAGES | more)[step.stage])
        if step.name == "answer":
            answer.take(session, result)
        if step.name == "extract":  # its pairs may have been made for an objective that asked less of them
            check(session.method, choice_of(session.bench), session.shown("extract").pairs)


def check_models(bench: Workbench) -> None:
    """Find out whether both models are to be had, before any work.

    Raises:
        PktError: one message for all that is missing.
    """
    problems: list[PktError] = []
    for role in ("teacher", "student"):
        try:
            bench.outline(role)
        except PktError as error:
            problems.append(error)
    if len(problems) > 1 and problems[0].exit_code == problems[1].exit_code:
        raise type(problems[0])("\n".join(str(problem) for problem in problems))
    if problems:
        raise problems[0]


def check_precision(session: Session) -> None:
    """Refuse to train in bfloat16 where the processor makes that slower; a result that is there can be used.

    Raises:
        RequestError: some step of the plan would.
    """
    config, store = session.bench.config, session.store
    trains = any(
        step.ingredients.get("settings", {}).get("optim.precision") == "bfloat16"
        and (step.stage in config.refresh or not store.path(step.stage, step.key).exists())
        for step in session.plan
    )
    if trains and (why := too_slow(torch.bfloat16, session.bench.device)):
        raise RequestError(
            f"optim.precision=bfloat16 is for devices that compute in it, and {why}. Set optim.precision=float32, or "
            "device=cuda on a machine with a GPU from Ampere (A100, RTX 30) on, or use a processor with AVX512-BF16 or "
            "AMX (Intel from Sapphire Rapids, AMD from Zen 4 on)"
        )


def check_pairs(session: Session) -> None:
    """Refuse layer pairs that do not go with the objective, where depths decide them, and what the pair has no use for.

    Raises:
        RequestError: they do not.
    """
    bench = session.bench
    if bench.config.meeting != MeetingConfig() and bench.one_vocabulary:
        raise RequestError(
            "meeting: teacher and student have one vocabulary, so that they meet at every position and share every "
            "token; leave meeting.share and meeting.anchors out, or take a pair with two tokenizers (model=nano-tokens)"
        )
    if "semantics" in session.method.uses and (reason := no_map(bench.semantics, bench)):
        raise RequestError(reason)
    if "mapping" in session.method.uses:
        depths = (bench.outline(role).num_hidden_layers for role in ("teacher", "student"))
        check(session.method, choice_of(bench), known_pairs(bench.pairing, *depths))


def request(cfg: DictConfig) -> tuple[Workbench, Method]:
    """Build what a request names; nothing is loaded and nothing is written.

    Args:
        cfg: the composed request.

    Raises:
        RequestError: strategies that do not go together, or a device that is not there.
    """
    method: Method = build(cfg.method)
    choice = Choice(
        mapping=build(cfg.mapping), semantics=build(cfg.semantics), objective=build(cfg.objective)
    )
    check(method, choice)
    config = cast(Config, OmegaConf.to_object(cfg))
    settle_by_method(config.optim, config.method)
    check_batches(choice.objective, config.optim)
    if config.capture.mode != "keep" and (why := method.needs_kept):
        raise RequestError(f"{why}, which have to be kept: set capture.mode=keep, got {config.capture.mode}")
    _hide_in_labels(config)
    seed_rows(config.seed)
    bench = Workbench(
        config=config,
        mapping=choice.mapping,
        semantics=choice.semantics,
        objective=choice.objective,
        device_type=device_type(config.device),
        prepare=partial(prepare, config),
        cache_dir=store_root(config.output_dir, config.store_dir) / "converted",
        track=progress,
    )
    bench.processes = connect(lambda: bench.device)
    if bench.processes.count > 1 and "vllm" in (config.eval.backend, config.answer.backend):
        raise RequestError(
            f"a backend is vllm, which starts processes of its own, and this request has {bench.processes.count}: "
            "run it in one (+vllm.tensor_parallel_size=... spreads a model over GPUs)"
        )
    return bench, method.on(bench.device_type)


def open_session(cfg: DictConfig, run_dir: Path) -> Session:
    """Build what the request names, and open the run's folder and tracker.

    Args:
        cfg: the composed request.
        run_dir: this run's folder.
    """
    bench, method = request(cfg)
    plain: dict[str, Any] = secrets.hide(OmegaConf.to_container(cfg, resolve=True))
    resolved = OmegaConf.to_yaml(OmegaConf.create(plain))
    places.begun(run_dir).written += [run_dir / name for name in (REQUEST, METRICS, "wandb")]
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / REQUEST, resolved)
    if not bench.processes.main:
        bench.config.tracker.name = "none"
    tracker = open_tracker(bench.config, run_dir, plain)
    if bench.processes.main:
        bench.log = lambda step, metrics: tracker.log(metrics, step=step, stage="transfer")
    return Session(
        bench=bench,
        method=method,
        store=Store(store_root(bench.config.output_dir, bench.config.store_dir)),
        run_dir=run_dir,
        tracker=tracker,
        command=command_line(),
        choices=choices(),
        provenance=partial(provenance, datetime.now(UTC)),
        resolved_config=resolved,
        plugins=origins(method, *vars(choice_of(bench)).values()),
        seeded=identity.seeded(cfg),
    )


def check_batches(objective: Objective, optim: OptimConfig) -> None:
    """Refuse micro batches for a term that compares all rows of an optimiser step with one another.

    Raises:
        RequestError: there is such a term, and the rows of a step would be in several forward passes.
    """
    name, micro = objective.together, optim.micro_batch_size
    if name is not None and micro is not None and (optim.tokens_per_batch or micro < optim.batch_size):
        raise RequestError(
            f"objective.terms.{name} compares all rows of an optimiser step with one another, which "
            f"optim.micro_batch_size={micro} takes apart (optim.batch_size={optim.batch_size}): set "
            "optim.micro_batch_size=null and a smaller optim.batch_size, or compare within rows "
            f"(objective.terms.{name}.scope=sequence)"
        )


def _hide_in_labels(config: Config) -> None:
    """Hide credentials in what names models, benchmarks and runs: it goes to every table, file and service."""
    for node in (config.model, config.benchmark):
        node.name = secrets.without(node.name)
    config.tracker = TrackerConfig(**secrets.hide(vars(config.tracker)))


def planner(session: Session) -> Planner:
    """Return what plans the steps of a request."""
    return Planner(bench=session.bench, method=session.method)


def plan_stages(planned: Planner, last: str) -> Plan:
    """Plan the method's stages up to one of them.

    Raises:
        RequestError: the method does not have it.
    """
    if last not in (*planned.method.results, "transfer"):
        name = planned.method.name
        raise RequestError(
            f"method={name} has no {last} stage: it takes nothing there from the teacher. "
            f"Try `pkt transfer method={name}`."
        )
    planned.chain(last)
    return planned.plan


def plan_scores(planned: Planner, asked: evaluate.Asked) -> Plan:
    """Plan the scores of the models asked for, after all that makes them."""
    config = planned.bench.config
    known, saved = asked.identities(), evaluate.checkpoint_identity(config)
    if "transferred" in config.eval.models and saved is None:
        planned.chain("transfer")  # what has to be trained comes before what is scored
    for role in config.eval.models:
        planned.scores(role, asked.tasks, known, saved)
    return planned.plan


def _extract(session: Session) -> None:
    run_plan(session, plan_stages(planner(session), "extract"))
    report.show_extraction(session)


def _align(session: Session) -> None:
    run_plan(session, plan_stages(planner(session), "align"))
    report.show_alignment(session)


def _transfer(session: Session) -> None:
    plan = plan_stages(planner(session), "transfer")
    unread.tell(session, plan)
    run_plan(session, plan)
    report.show_transfer(session)


def _evaluate(session: Session) -> float | None:
    asked = evaluate.asked(session.bench)
    plan = plan_scores(planner(session), asked)
    if "transfer" in plan:
        evaluate.note_rows(session.bench, asked, answered="answer" in plan)
        unread.tell(session, plan)
    if session.bench.config.verb == "run" and is_first():
        briefing.tell(session, plan, {task: len(rows) for task, rows in asked.rows.items()})
    run_plan(session, plan, eval=partial(evaluate.run, asked))
    return report.report(session, evaluate.scores(session))


def _analyze(session: Session) -> None:
    from pkt.stages import analyze

    config = session.bench.config
    maps = every_map(config.analyze.maps or (), seed=config.seed)
    subject = analyze.subject(session.bench, session.results, maps)
    planned = planner(session)
    analyze.plan(planned, subject)
    with subject.released():
        run_plan(session, planned.plan, analyze=partial(analyze.run, subject))
    analyze.show(session, subject)


def every_map(foreign: Iterable[str] = (), *, seed: int = 0) -> dict[str, Any]:
    """Build the options of `semantics` that differ in the map that they begin with.

    Args:
        foreign: see `every_option`, as the other.
        seed: of random controls.
    """
    found: dict[str, Any] = {}
    for name, option in every_option("semantics", foreign, seed=seed).items():
        first = closed_form(option)
        if name in foreign or first not in found.values():
            found[name] = first
    return found


def every_option(group: str, foreign: Iterable[str] = (), *, seed: int = 0) -> dict[str, Any]:
    """Build every option of a config group of strategies, as its file has it; the user's files win.

    Args:
        group: such as ``semantics``.
        foreign: names of options in the request; those of plugins are built too.
        seed: the request's, by which random controls are drawn.

    Raises:
        RequestError: a file that builds nothing.
    """
    files = option_files(group, foreign)
    return {
        name: build(OmegaConf.create({"seed": seed, group: read_option(name, files)})[group])
        for name in files
    }


VERBS: dict[str, Callable[[Session], float | None]] = {
    "extract": _extract,
    "align": _align,
    "transfer": _transfer,
    "eval": _evaluate,
    "analyze": _analyze,
    "run": _evaluate,  # the scores need every stage before them
}
STAGES: dict[str, Stage] = {
    "extract": extract.run,
    "answer": answer.run,
    "align": align.run,
    "transfer": transfer.run,
}
