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
from pkt.models.fingerprint import fingerprint as model_fingerprint
from pkt.models.pair import LanguageModel, load_checkpoint
from pkt.stages import transfer as transfer_stage
from pkt.stages.session import Session
from pkt.store import Artifact, content_key

STAGE = "eval"
VALIDATION = "validation"  # the value of eval.split that is not the test rows


def key(session: Session, identity: str) -> str:
    """Who is scored, on which rows, under which settings."""
    config = session.bench.config
    rows = {task: _identity_of_rows(task, session) for task in config.benchmark.tasks}
    return content_key(
        {
            "stage": STAGE,
            "model": identity,
            "rows": rows,
            "chat_template": config.model.chat_template,
            "limit": config.eval.limit,
            "max_new_tokens": config.eval.max_new_tokens,
            "timeout": config.eval.timeout,
        }
        | ({"split": VALIDATION} if config.eval.split == VALIDATION else {})
        | sampling_of(config).identity()
    )


def sampling_of(config: Config) -> Sampling:
    """Return how answers are generated; the request's seed is that of the draws.

    Raises:
        RequestError: settings that make no sense together.
    """
    asked = config.eval
    return Sampling(samples=asked.samples, temperature=asked.temperature, top_p=asked.top_p, seed=config.seed)


def _identity_of_rows(task: str, session: Session) -> Any:
    """Return the rows' fingerprint; for a real benchmark with the protocol that they are scored by.

    The rows of lm-eval's other tasks are lm-eval's business: its version stands for them.
    """
    config = session.bench.config
    if config.eval.split != VALIDATION and task not in SUITES and task not in TASKS:
        return {"lm_eval": version("lm_eval")}
    if config.eval.split == VALIDATION:
        return rows_fingerprint(validation_rows(task, config.data, config.benchmark))
    rows = rows_fingerprint(test_rows(task, config.data, config.benchmark))
    return {"rows": rows, "protocol": PROTOCOL} if task in SUITES else rows


def scores(session: Session) -> dict[str, Evaluation]:
    """Return an evaluation per role: ``teacher``, ``student``, ``transferred``, in the order asked for."""
    roles = session.bench.config.eval.models
    check_sampling(sampling_of(session.bench.config), session.bench.config.benchmark.tasks)
    _rows(session)  # a set that is not to be had is found out before anything is trained
    if "transferred" in roles:  # in the order of the flow: what has to be trained comes before what is scored
        transferred_folder(session)
    found = {role: Evaluation.load(_scored(session, role).path / "scores.json") for role in roles}
    for role, evaluation in found.items():
        for task, count in evaluation.cut.items():
            console.warn(
                f"{task}: {count} of {len(evaluation.samples[task])} prompts do not fit into the {role}'s context "
                "and were cut on the left, as lm-eval does; their scores say little about the model."
            )
    return found


def _scored(session: Session, role: str) -> Artifact:
    """Make sure that one model's scores are in the store."""
    checkpoint = transferred_folder(session) if role == "transferred" else None
    identity = identity_of(session, role, checkpoint)

    def compute(folder: Path) -> Mapping[str, Any]:
        model = model_of(session, role, checkpoint)
        evaluation = _evaluate(session, model)
        session.bench.release(role)
        evaluation.save(folder / "scores.json")
        return {"role": role, "identity": identity}

    return session.obtain(STAGE, key(session, identity), compute, label=f"eval {role}")


def transferred_folder(session: Session) -> Path:
    """Return the transferred student's folder: the one the user names, or this request's own."""
    named = session.bench.config.eval.checkpoint
    if named is None:
        return transfer_stage.transfer(session).path / transfer_stage.MODEL
    folder = Path(named)
    if not (folder / "config.json").is_file():
        raise RequestError(f"eval.checkpoint={named}: no model folder there (config.json is missing).")
    return folder


def identity_of(session: Session, role: str, checkpoint: Path | None) -> str:
    """Return what a key says of the model of a role: its fingerprint, or the key of the transfer that made it."""
    if role == "teacher":
        return session.bench.teacher_fingerprint
    if role == "student":
        return session.bench.student_fingerprint
    if session.bench.config.eval.checkpoint is None:
        return transfer_stage.key(session)
    return model_fingerprint(CheckpointSpec(checkpoint=str(checkpoint)))


def model_of(session: Session, role: str, checkpoint: Path | None) -> LanguageModel:
    """Load the model of a role; `checkpoint` is the transferred student's folder (None for the other two)."""
    if checkpoint is not None:
        return load_checkpoint(checkpoint, session.bench.device)
    return session.bench.teacher if role == "teacher" else session.bench.student


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
    tasks = dict.fromkeys(config.benchmark.tasks)
    if config.eval.split == VALIDATION:
        own = {task: validation_rows(task, config.data, config.benchmark) for task in tasks}
        return {"own_rows": own, "custom_rows": own.get("custom")}
    suites = {task: list(test_rows(task, config.data, config.benchmark)) for task in tasks if task in SUITES}
    return {
        "suite_rows": suites,
        "custom_rows": list(test_rows("custom", config.data)) if "custom" in tasks else None,
    }
