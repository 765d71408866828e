"""The lm-eval adapter: a model and a tokenizer in memory, tasks and rows in, an `Evaluation` out.

    tasks -> parts -> lm_eval.simple_evaluate(Scorer) -> samples -> the tasks' grading -> scores with standard errors

It knows no task: each says what lm-eval is to be asked, and judges what comes back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pkt.data.chat import Chat
from pkt.errors import PktError, RequestError
from pkt.evaluation.parts import Logged, Part, Rows, Sample, Scorable
from pkt.evaluation.quiet import quiet
from pkt.evaluation.results import Evaluation, TaskScore
from pkt.evaluation.sampling import Sampling

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
) -> Evaluation:
    """Score a model, zero-shot and greedily unless told otherwise.

    Args:
        model: a causal Hugging Face model; moved to `device` unless accelerate has spread it.
        tokenizer: its tokenizer; left as it is.
        tasks: each once.
        rows: to score, by the task's name; a task of lm-eval's needs none.
        limit: rows per task; None is all.
        batch_size: rows at a time when generating; log-likelihoods take as many tokens as 128 times that.
        max_new_tokens: None is the task's own.
        device: a torch device or its name.
        chat: wraps prompts in the tokenizer's chat template; None leaves them as they are.
        timeout: seconds per generated program.
        sampling: how answers are generated.

    Raises:
        RequestError: no task, an answer that exceeds the context, no chat template, draws where nothing is generated.
        PktError: lm-eval failed (data that cannot be fetched, for example).
    """
    _check(tasks, tokenizer, limit, batch_size, chat)
    for task in tasks:
        task.check(sampling)
    with quiet(), _evaluating(model, device):
        from pkt.evaluation.scorer import Scorer  # imports lm-eval: seconds

        parts = {
            task.name: task.parts(rows.get(task.name, ()), limit=limit, samples=sampling.samples)
            for task in tasks
        }
        scorer = Scorer(model, tokenizer, batch_size=batch_size, seed=sampling.seed)
        settings = ({"max_gen_toks": max_new_tokens} if max_new_tokens else {}) | sampling.settings()
        asked = [part for of in parts.values() for part in of]
        most = limit if sampling.samples == 1 else None  # lm-eval would count answers, not rows
        found = _simple_evaluate(scorer, asked, most, settings, chat)
        logged = Logged(
            samples=found["samples"],
            hits=scorer.hits,
            results=found["results"],
            higher_is_better=found["higher_is_better"],
            timeout=timeout,
        )
        return _collect(tasks, parts, logged, scorer.cut, found["versions"])


def _check(
    tasks: Sequence[Scorable], tokenizer: Any, limit: int | None, batch_size: int, chat: Chat | None
) -> None:
    if not tasks:
        raise RequestError("no task to score: name some (benchmark.tasks=[...])")
    if (limit is not None and limit < 1) or batch_size < 1:
        raise RequestError(
            f"eval.limit={limit}, eval.batch_size={batch_size}: both must be at least 1 (limit: or null)"
        )
    if chat is not None and not getattr(tokenizer, "chat_template", None):
        raise RequestError("chat_template=true, but the tokenizer has none: set model.chat_template=false")


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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        asked = ", ".join(part.name for part in parts)
        raise PktError(f"lm-eval could not score {asked}: {reason}") from error
    return found


def _collect(
    tasks: Sequence[Scorable],
    parts: Mapping[str, Sequence[Part]],
    logged: Logged,
    cut: Collection[str],
    versions: Mapping[str, Any],
) -> Evaluation:
    """Let each task judge its answers, and count the prompts that lost their head."""
    scores: list[TaskScore] = []
    samples: dict[str, list[dict[str, Any]]] = {}
    cuts: dict[str, int] = {}
    for task in tasks:
        graded = task.grade(parts[task.name], logged)
        scores += graded.scores
        samples |= graded.samples
        for name in graded.samples:
            of = [part for part in parts[task.name] if name in (task.name, part.name)]
            if count := _cut([sample for part in of for sample in logged.samples[part.name]], cut):
                cuts[name] = count
    told = {"lm_eval": version("lm_eval")} | {task: str(number) for task, number in versions.items()}
    return Evaluation(scores=tuple(scores), samples=samples, versions=told, cut=cuts)


def _cut(logged: Sequence[Sample], contexts: Collection[str]) -> int:
    """Count the prompts of a task that lost their head."""
    asked = {str(argument[0]) for sample in logged for argument in sample["arguments"]}
    return len(asked & set(contexts))


@contextlib.contextmanager
def _evaluating(model: Any, device: Any) -> Iterator[None]:
    """Move the model; give it back in its mode, and the random generators in their states (lm-eval draws)."""
    import numpy as np
    import torch

    training, states = model.training, (random.getstate(), np.random.get_state(), torch.get_rng_state())
    if getattr(model, "hf_device_map", None) is None:
        model.to(device)
    try:
        yield
    finally:
        model.train(training)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
