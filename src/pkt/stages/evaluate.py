"""Stage 4: score teacher, untouched student and transferred student through lm-eval, each once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkt import console
from pkt.config import CheckpointSpec, Config
from pkt.errors import RequestError
from pkt.evaluation.harness import Evaluation, evaluate
from pkt.evaluation.parts import Rows
from pkt.evaluation.sampling import Sampling
from pkt.models.fingerprint import fingerprint as model_fingerprint
from pkt.models.pair import LanguageModel, load_checkpoint
from pkt.stages import transfer as transfer_stage
from pkt.stages.session import Session
from pkt.store import Artifact, content_key
from pkt.tasks.base import Given, Task
from pkt.tasks.find import find

STAGE = "eval"
VALIDATION = "validation"  # the value of eval.split that is not the test rows


def key(session: Session, identity: str) -> str:
    """Who is scored, on which rows, under which settings."""
    config = session.bench.config
    tasks, rows = _asked(session)
    identities = {task.name: task.identity(rows[task.name]) for task in tasks}
    return content_key(
        {
            "stage": STAGE,
            "model": identity,
            "tasks": identities,
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


def scores(session: Session) -> dict[str, Evaluation]:
    """Return an evaluation per role: ``teacher``, ``student``, ``transferred``, in the order asked for."""
    roles = session.bench.config.eval.models
    for asked in _asked(session)[0]:  # a set that is not to be had is found out before anything is trained
        asked.check(sampling_of(session.bench.config))
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
    tasks, rows = _asked(session)
    return evaluate(
        model.model,
        model.tokenizer,
        tasks,
        rows,
        limit=config.eval.limit,
        batch_size=config.eval.batch_size,
        max_new_tokens=config.eval.max_new_tokens,
        device=session.bench.device,
        chat_template=config.model.chat_template,
        timeout=config.eval.timeout,
        sampling=sampling_of(config),
    )


def _asked(session: Session) -> tuple[list[Task], dict[str, Rows]]:
    """Return the tasks to score, and their rows by name."""
    config = session.bench.config
    fitting = session.bench.fitting if config.eval.split == VALIDATION else None  # as where they were drawn
    given = Given(benchmark=config.benchmark, data=config.data, fitting=fitting)
    tasks = [find(name, config.benchmark.task_path) for name in dict.fromkeys(config.benchmark.tasks)]
    return tasks, {task.name: task.scored(config.eval.split, given) for task in tasks}
