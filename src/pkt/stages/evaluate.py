"""Stage 4: score teacher, untouched student and transferred student through lm-eval, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.config import CheckpointSpec, Config
from pkt.data import notes
from pkt.data.encoding import refuse_texts
from pkt.errors import RequestError
from pkt.evaluation.decoding import NEUTRAL
from pkt.evaluation.harness import evaluate
from pkt.evaluation.parts import Rows
from pkt.evaluation.results import Evaluation
from pkt.evaluation.sampling import Sampling
from pkt.methods.readings import tokenizer_of
from pkt.methods.workbench import Workbench
from pkt.models.fingerprint import fingerprint as model_fingerprint
from pkt.models.load import declared_roles
from pkt.models.pair import LanguageModel, check_own, load_checkpoint
from pkt.run_files import CHECKPOINT, SCORES
from pkt.stages.serving import served
from pkt.stages.session import Job, Session
from pkt.store import Artifact
from pkt.tasks.base import RowTask, Task
from pkt.tasks.find import find
from pkt.tasks.grading import Exact

VALIDATION = "validation"  # the value of eval.split that is not the test rows


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The tasks, rows and sampling of a request, the same for every model.

    Attributes:
        tasks: in the order of the request.
        rows: to score, by the task's name.
        sampling: how answers are generated.
    """

    tasks: tuple[Task, ...]
    rows: Mapping[str, Rows]
    sampling: Sampling

    def identities(self) -> dict[str, Any]:
        """Return what decides each task's scores beside the model and the decoding."""
        return {task.name: task.identity(self.rows[task.name]) for task in self.tasks}


def asked(bench: Workbench) -> Asked:
    """Return the tasks, rows and sampling that a request asks for.

    The pipeline calls this before anything is trained, so that rows that cannot be had are noticed early.

    Raises:
        RequestError: an unknown task, or settings that make no sense with one.
    """
    config = bench.config
    sampling = Sampling(
        samples=config.eval.samples,
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        seed=config.seed,
    )
    fitting = bench.fitting if config.eval.split == VALIDATION else None  # the limit of length that drew them
    given = bench.given(fitting)
    tasks = tuple(find(name, config.benchmark.task_path) for name in dict.fromkeys(config.benchmark.tasks))
    for task in tasks:
        task.check(sampling)
    rows = {task.name: task.scored(config.eval.split, given) for task in tasks}
    for known in rows.values():
        refuse_texts(known, bench.chat)
    return Asked(tasks=tasks, rows=rows, sampling=sampling)


def _generated(task: Task, config: Config) -> int | None:
    """Return how many tokens a model may write to match a row's answer; None where it does not have to."""
    if not isinstance(task, RowTask) or not any(isinstance(one, Exact) for one in task.gradings):
        return None
    return config.eval.max_new_tokens or task.written.most


def note_rows(bench: Workbench, of: Asked, *, answered: bool) -> None:
    """Tell what is unusual about the rows that are scored, and how many of them the student was trained on.

    Args:
        bench: of the request.
        of: what is scored.
        answered: whether the teacher answers prompts that the student is trained on.
    """
    split = bench.config.eval.split
    for task in of.tasks:
        name = f"{task.name}/{split}"
        rows = [row for row in of.rows[task.name] if {"prompt", "answer"} <= row.keys()]
        bench.note(*bench.unwritable(name, rows, _generated(task, bench.config)))
        if bench.chat is None:
            bench.note(*notes.unusual(name, rows))
        for other, held in bench.splits.items():
            if other != split:
                bench.note(*notes.overlap(name, rows, other, held.rows))
        if answered and bench.config.data.unlabelled is not None:
            asked = [prompt.text for prompt in bench.prompts]
            bench.note(*notes.asked_too(name, rows, asked, "the prompts without labels"))


def run(of: Asked, job: Job) -> Mapping[str, Any]:
    """Score the model of the step's role."""
    bench, config, role = job.bench, job.bench.config, job.step.of
    model, tokenizer = _subject(job, role)
    evaluation = evaluate(
        model,
        tokenizer,
        of.tasks,
        of.rows,
        limit=config.eval.limit,
        batch_size=config.eval.batch_size,
        max_new_tokens=config.eval.max_new_tokens,
        device=bench.device,
        chat=bench.chat,
        timeout=config.eval.timeout,
        sampling=of.sampling,
        decoding=config.eval.decoding,
        processes=bench.processes,
        track=lambda what, total: bench.track(f"eval {role}, {what}", total),
    )
    bench.release(role)
    if job.writes:
        evaluation.save(job.folder / SCORES)
    return {"role": role}


def _subject(job: Job, role: str) -> tuple[Any, Any]:
    """Return the model that is scored, as its engine takes it, and its tokenizer."""
    bench, results = job.bench, job.session.results
    if bench.config.eval.backend == "hf":
        model = model_of(bench, results, role)
        return model.model, model.tokenizer
    return served(
        bench, role, trained(bench, results) if role == "transferred" else None, job.scratch
    ), tokenizer_of(bench, role)


def scores(session: Session) -> dict[str, Evaluation]:
    """Return the evaluations that are there, by role, in the order asked for."""
    roles = session.bench.config.eval.models
    found = {role: Evaluation.load(session.results[f"eval {role}"].path / SCORES) for role in roles}
    for role, evaluation in found.items():
        for task, count in evaluation.cut.items():
            session.bench.note(
                f"{task}: {count} of {len(evaluation.samples[task])} prompts do not fit into the {role}'s context "
                "beside the tokens that it may write, and were cut on the left, as lm-eval does; their scores say "
                "little about the model. Fewer new tokens (eval.max_new_tokens) leave more of a prompt."
            )
        session.bench.note(*decoding_notes(role, evaluation))
    return found


def decoding_notes(role: str, evaluation: Evaluation) -> Iterator[str]:
    """Say what became of a model's own generation settings, where it has any that change an answer."""
    told: dict[tuple[str, str], list[str]] = {}
    for task, how in evaluation.decoding.items():
        if own := ", ".join(f"{name}={value}" for name, value in how["of_the_model"].items()):
            told.setdefault((how["decoding"], own), []).append(task)
    for (mode, own), tasks in told.items():
        done = "left out of" if mode == NEUTRAL else "applied to"
        other = "model applies them" if mode == NEUTRAL else "neutral leaves them out"
        yield (
            f"{role}: its own generation settings ({own}) are {done} its answers to {', '.join(tasks)}; "
            f"eval.decoding={other}."
        )


def checkpoint(config: Config) -> Path | None:
    """Return the folder that the user names as the transferred student; None: the request makes its own.

    Raises:
        RequestError: no model is there, or one of pkt's own that was changed since.
    """
    named = config.eval.checkpoint
    if named is None:
        return None
    folder = Path(named)
    if not (folder / "config.json").is_file():
        raise RequestError(f"eval.checkpoint={named}: no model folder there (config.json is missing).")
    check_own(folder, f"eval.checkpoint={named}")
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
    pair = bench.config.model
    return load_checkpoint(
        trained(bench, results), bench.device, roles=declared_roles(pair.student, pair.teacher)
    )


def trained(bench: Workbench, results: Mapping[str, Artifact]) -> Path:
    """Return the folder of the transferred student."""
    return checkpoint(bench.config) or results["transfer"].path / CHECKPOINT
