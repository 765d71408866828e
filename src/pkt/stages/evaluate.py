"""Stage 4: score teacher, untouched student and transferred student through lm-eval, each once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pkt import console
from pkt.config import CheckpointSpec, Config
from pkt.data.rows import fingerprint as rows_fingerprint
from pkt.data.splits import test_rows, validation_rows
from pkt.data.suites import SUITES
from pkt.errors import RequestError
from pkt.evaluation.harness import TASKS, Evaluation, check_sampling, evaluate
from pkt.evaluation.sampling import Sampling
from pkt.evaluation.suites import PROTOCOL
from pkt.methods.workbench import Workbench
from pkt.models.fingerprint import fingerprint as model_fingerprint
from pkt.models.pair import LanguageModel, load_checkpoint
from pkt.stages.session import Job, Session
from pkt.stages.transfer import MODEL
from pkt.store import Artifact

SCORES = "scores.json"
VALIDATION = "validation"  # the value of eval.split that is not the test rows


def tasks(config: Config) -> dict[str, Any]:
    """Return what decides each task's scores beside the model; rows that are not to be had are found out here.

    Raises:
        RequestError: an unknown task, or settings that make no sense with one.
    """
    check_sampling(sampling_of(config), config.benchmark.tasks)
    return {task: _identity_of_rows(task, config) for task in config.benchmark.tasks}


def sampling_of(config: Config) -> Sampling:
    """Return how answers are generated; the request's seed is that of the draws.

    Raises:
        RequestError: settings that make no sense together.
    """
    asked = config.eval
    return Sampling(samples=asked.samples, temperature=asked.temperature, top_p=asked.top_p, seed=config.seed)


def _identity_of_rows(task: str, config: Config) -> Any:
    """Return the rows' fingerprint; for a real benchmark with the protocol that they are scored by.

    The rows of lm-eval's other tasks are lm-eval's business: its version stands for them.
    """
    if config.eval.split != VALIDATION and task not in SUITES and task not in TASKS:
        return {"lm_eval": version("lm_eval")}
    if config.eval.split == VALIDATION:
        return rows_fingerprint(validation_rows(task, config.data, config.benchmark))
    rows = rows_fingerprint(test_rows(task, config.data, config.benchmark))
    return {"rows": rows, "protocol": PROTOCOL} if task in SUITES else rows


def run(job: Job) -> Mapping[str, Any]:
    """Score the model of the step's role."""
    session, role = job.session, job.step.of
    evaluation = _evaluate(session, model_of(session.bench, session.results, role))
    session.bench.release(role)
    evaluation.save(job.folder / SCORES)
    return {"role": role}


def scores(session: Session) -> dict[str, Evaluation]:
    """Return the evaluations that are there, by role, in the order asked for."""
    roles = session.bench.config.eval.models
    found = {role: Evaluation.load(session.results[f"eval {role}"].path / SCORES) for role in roles}
    for role, evaluation in found.items():
        for task, count in evaluation.cut.items():
            console.warn(
                f"{task}: {count} of {len(evaluation.samples[task])} prompts do not fit into the {role}'s context "
                "and were cut on the left, as lm-eval does; their scores say little about the model."
            )
    return found


def checkpoint(config: Config) -> Path | None:
    """Return the folder that the user names as the transferred student; None: the request makes its own.

    Raises:
        RequestError: no model is there.
    """
    named = config.eval.checkpoint
    if named is None:
        return None
    folder = Path(named)
    if not (folder / "config.json").is_file():
        raise RequestError(f"eval.checkpoint={named}: no model folder there (config.json is missing).")
    return folder


def checkpoint_identity(config: Config) -> str | None:
    """Return the fingerprint of the folder that the user names as the transferred student."""
    folder = checkpoint(config)
    return None if folder is None else model_fingerprint(CheckpointSpec(checkpoint=str(folder)))


def model_of(bench: Workbench, results: Mapping[str, Artifact], role: str) -> LanguageModel:
    """Load the model of a role."""
    if role != "transferred":
        model: LanguageModel = getattr(bench, role)
        return model
    folder = checkpoint(bench.config) or results["transfer"].path / MODEL
    return load_checkpoint(folder, bench.device)


def _evaluate(session: Session, model: LanguageModel) -> Evaluation:
    config = session.bench.config
    return evaluate(
        model.model,
        model.tokenizer,
        config.benchmark.tasks,
        limit=config.eval.limit,
        batch_size=config.eval.batch_size,
        max_new_tokens=config.eval.max_new_tokens,
        device=session.bench.device,
        chat_template=config.model.chat_template,
        timeout=config.eval.timeout,
        sampling=sampling_of(config),
        **_rows(session),
    )


def _rows(session: Session) -> dict[str, Any]:
    """Return the rows to score, as `evaluate` takes them; pkt's own tasks know their test rows themselves."""
    config = session.bench.config
    named = dict.fromkeys(config.benchmark.tasks)
    if config.eval.split == VALIDATION:
        own = {task: validation_rows(task, config.data, config.benchmark) for task in named}
        return {"own_rows": own, "custom_rows": own.get("custom")}
    suites = {task: list(test_rows(task, config.data, config.benchmark)) for task in named if task in SUITES}
    return {
        "suite_rows": suites,
        "custom_rows": list(test_rows("custom", config.data)) if "custom" in named else None,
    }
