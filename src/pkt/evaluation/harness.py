"""The lm-eval adapter: scores a loaded model on rows of tasks and returns an `Evaluation`.

    tasks -> parts -> lm_eval.simple_evaluate(Scorer) -> samples -> the tasks' grading -> scores with standard errors

It knows no task by name: each task writes the requests to lm-eval and grades the answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pkt.data.chat import Chat
from pkt.errors import PktError, RequestError, first_line
from pkt.evaluation.decoding import MODEL
from pkt.evaluation.engines import scorer_of
from pkt.evaluation.parts import Logged, Part, Rows, Sample, Scorable
from pkt.evaluation.results import Evaluation, TaskScore
from pkt.evaluation.sampling import Sampling
from pkt.processes import ALONE, Processes
from pkt.progress import Track, untracked

if TYPE_CHECKING:
    from pkt.evaluation.asking import Asking

GREEDY = Sampling()


def evaluate(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Scorable],
    rows: Mapping[str, Rows],
    *,
    limit: int | None = None,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    device: Any = "cpu",
    chat: Chat | None = None,
    timeout: float = 5.0,
    sampling: Sampling = GREEDY,
    decoding: str | None = None,
    processes: Processes = ALONE,
    track: Track = untracked,
) -> Evaluation:
    """Score a model, zero-shot and greedily unless told otherwise; the main process alone grades.

    Args:
        model: what `scorer_of` takes.
        tokenizer: its tokenizer, which is not changed.
        tasks: what to score, each task once.
        rows: by the task's name; a task of lm-eval's reads its own.
        limit: rows per task; None: all.
        batch_size: rows at a time when generating; log-likelihoods take 128 tokens for each of them at a time.
        max_new_tokens: per answer; None: as the task says.
        device: a torch device or its name.
        chat: wraps prompts in the tokenizer's chat template; None leaves them as they are.
        timeout: seconds per generated program.
        sampling: how answers are generated.
        decoding: ``neutral`` or ``model``, see `pkt.evaluation.decoding`; None: as each task has it.
        processes: who runs the model; in all but the main one the result is empty.
        track: shows how far it is.

    Raises:
        RequestError: no task; no chat template; an answer that exceeds the context; several answers per row of a task
            that generates none.
        PktError: lm-eval failed, for example because data cannot be fetched.
    """
    if not tasks:
        raise RequestError("no task to score: name some (benchmark.tasks=[...])")
    if chat is not None and not getattr(tokenizer, "chat_template", None):
        raise RequestError("chat_template=true, but the tokenizer has none: set model.chat_template=false")
    for task in tasks:
        task.check(sampling)
    parts = _parts(tasks, rows, limit, sampling)
    follow = [
        part.name for task in tasks for part in parts[task.name] if (decoding or task.decoding) == MODEL
    ]
    settings = ({"max_gen_toks": max_new_tokens} if max_new_tokens else {}) | sampling.settings()
    asked = [part for of in parts.values() for part in of]
    most = limit if sampling.samples == 1 else None  # lm-eval would count answers, not rows
    how = {"batch_size": batch_size, "seed": sampling.seed, "chat": chat, "follow": follow}
    with scorer_of(model, tokenizer, device=device, processes=processes, **how) as scorer:
        scorer.track = track
        found = _simple_evaluate(scorer, asked, most, settings, chat)
        if not processes.main:
            return Evaluation(scores=(), samples={}, versions={})
        return _collect(tasks, parts, _logged(found, scorer, timeout), scorer, found["versions"])


def _parts(
    tasks: Sequence[Scorable], rows: Mapping[str, Rows], limit: int | None, sampling: Sampling
) -> dict[str, Sequence[Part]]:
    """Return what lm-eval is asked for each task."""
    return {
        task.name: task.parts(rows.get(task.name, ()), limit=limit, samples=sampling.samples)
        for task in tasks
    }


def _logged(found: Mapping[str, Any], scorer: Asking, timeout: float) -> Logged:
    """Return lm-eval's answers as the tasks read them."""
    return Logged(
        samples=found["samples"],
        hits=scorer.hits,
        results=found["results"],
        higher_is_better=found["higher_is_better"],
        timeout=timeout,
    )


def _simple_evaluate(
    scorer: Any, parts: Sequence[Part], limit: int | None, settings: dict[str, Any], chat: Chat | None
) -> dict[str, Any]:
    """Run lm-eval without its bootstrap (errors are ours) and without touching any random state."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    try:
        with contextlib.nullcontext() if chat is None else chat.clock():
            found: dict[str, Any] = lm_eval.simple_evaluate(
                model=scorer,
                tasks=[part.config for part in parts],
                task_manager=TaskManager(include_defaults=False),
                limit=limit,
                bootstrap_iters=0,
                gen_kwargs=settings or None,
                apply_chat_template=chat is not None,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
                fewshot_random_seed=1234,
            )
    except (OSError, ValueError) as error:
        asked = ", ".join(part.name for part in parts)
        raise PktError(f"lm-eval could not score {asked}: {first_line(error)}") from error
    return found


def _collect(
    tasks: Sequence[Scorable],
    parts: Mapping[str, Sequence[Part]],
    logged: Logged,
    scorer: Asking,
    versions: Mapping[str, Any],
) -> Evaluation:
    """Let each task grade its answers, count the prompts that were cut on the left, and say how it was decoded."""
    scores: list[TaskScore] = []
    samples: dict[str, list[dict[str, Any]]] = {}
    cuts: dict[str, int] = {}
    decoded: dict[str, dict[str, Any]] = {}
    for task in tasks:
        graded = task.grade(parts[task.name], logged)
        scores += graded.scores
        samples |= graded.samples
        for name in graded.samples:
            of = [part for part in parts[task.name] if name in (task.name, part.name)]
            if count := _cut([sample for part in of for sample in logged.samples[part.name]], scorer.cut):
                cuts[name] = count
            for how in [scorer.decoded[part.name] for part in of if part.name in scorer.decoded][:1]:
                decoded[name] = how
    told = {"lm_eval": version("lm_eval")} | {task: str(number) for task, number in versions.items()}
    return Evaluation(scores=tuple(scores), samples=samples, versions=told, cut=cuts, decoding=decoded)


def _cut(logged: Sequence[Sample], contexts: Collection[str]) -> int:
    """Count the prompts of a task that were cut on the left."""
    asked = {str(argument[0]) for sample in logged for argument in sample["arguments"]}
    return len(asked & set(contexts))
