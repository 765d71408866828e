"""The lm-eval adapter: a model and a tokenizer in memory, task names in, an `Evaluation` out.

    tasks -> lm_eval.simple_evaluate(Scorer) -> samples -> grading -> scores with standard errors

pkt's own tasks lie in tasks/ and need no network. The real benchmarks (suites.py) are lm-eval's own task files with
rows that pkt has read. Any other name is looked for among lm-eval's tasks (indexing them takes some ten seconds),
which load their data from a hub as lm-eval does.
"""

from __future__ import annotations

import contextlib
import difflib
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt.config import BenchmarkConfig, SplitSizes
from pkt.data.suites import SUITES
from pkt.errors import PktError, RequestError, nearest
from pkt.evaluation import grading, suites
from pkt.evaluation.quiet import quiet
from pkt.evaluation.results import Evaluation, TaskScore
from pkt.evaluation.sampling import Sampling, refuse

__all__ = ["TASKS", "Evaluation", "TaskScore", "evaluate"]

GREEDY = Sampling()
FOLDER = Path(__file__).with_name("tasks")
# task -> the lm-eval tasks that make it up; the first one's records are the task's samples
TASKS: dict[str, tuple[str, ...]] = {
    "nano_knowledge": ("nano_knowledge",),
    "nano_math": ("nano_math",),
    "nano_code": ("nano_code",),
    "nano_program": ("nano_program",),
    "pystdlib": ("pystdlib",),
    "custom": ("custom_generate", "custom_likelihood"),
}


def evaluate(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    device: Any = "cpu",
    chat_template: bool = False,
    timeout: float = 5.0,
    custom_rows: Sequence[Mapping[str, Any]] | None = None,
    suite_rows: Mapping[str, suites.Rows] | None = None,
    own_rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    sampling: Sampling = GREEDY,
) -> Evaluation:
    """Score a model, zero-shot and greedily unless told otherwise, on each task's test rows.

    Args:
        model: a causal Hugging Face model; moved to `device` unless accelerate has spread it.
        tokenizer: its tokenizer; left as it is.
        tasks: names in `TASKS`, real benchmarks, or lm-eval's other tasks (those need a hub).
        limit: test rows per task; None is all.
        batch_size: rows at a time when generating; log-likelihoods take as many tokens as 128 times that.
        max_new_tokens: None is the task's own.
        device: a torch device or its name.
        chat_template: wrap prompts in the tokenizer's chat template.
        timeout: seconds per generated program.
        custom_rows: test rows of the task ``custom`` (prompt, answer, id).
        suite_rows: test rows of real benchmarks, by name; one that is not given is read from the hub.
        own_rows: rows of nano tasks and ``pystdlib``, by name, to score instead of their test rows.
        sampling: how answers are generated.

    Raises:
        RequestError: unknown task, an answer that exceeds the context, no rows for ``custom``, no chat template, draws
            where nothing is generated.
        PktError: lm-eval failed (data that cannot be fetched, for example).
    """
    _check(tasks, tokenizer, limit, batch_size, chat_template, custom_rows)
    check_sampling(sampling, tasks)
    real = {task: _parts(task, suite_rows or {}, limit, sampling) for task in tasks if task in SUITES}
    names = list(
        dict.fromkeys(part for task in tasks if task not in real for part in TASKS.get(task, (task,)))
    )
    configs = [part.config for of in real.values() for part in of]
    with quiet(), _evaluating(model, device):
        from pkt.evaluation.scorer import Scorer  # imports lm-eval: seconds

        scorer = Scorer(model, tokenizer, batch_size=batch_size, seed=sampling.seed)
        rows: dict[str, Any] = {
            "rows": [dict(row) for row in custom_rows or ()],
            "own_rows": {task: [dict(row) for row in given] for task, given in (own_rows or {}).items()},
        }
        if sampling.samples > 1:  # lm-eval would count answers, not rows
            rows |= {"samples": sampling.samples, "limit": limit}
            limit = None
        settings = ({"max_gen_toks": max_new_tokens} if max_new_tokens else {}) | sampling.settings()
        found = _simple_evaluate(scorer, names, configs, limit, settings, chat_template, rows)
        return _collect(tasks, real, found, scorer, timeout)


def check_sampling(sampling: Sampling, tasks: Sequence[str]) -> None:
    """Refuse draws for tasks where nothing is generated.

    Raises:
        RequestError: such a task is asked for.
    """
    kinds = {task: {grading.KINDS[name] for name in names} for task, names in TASKS.items()} | {
        "mmlu": {"choice"}
    }
    fixed = [task for task in tasks if kinds.get(task, {"program"}) <= {"choice", "likelihood"}]
    refuse(sampling, fixed, [task for task in tasks if task not in TASKS and task not in SUITES])


def _parts(
    task: str, rows: Mapping[str, suites.Rows], limit: int | None, sampling: Sampling
) -> list[suites.Part]:
    given = rows.get(task)
    if given is None:
        given = SUITES[task].rows("test", BenchmarkConfig(name=task, tasks=[task]), SplitSizes())
    with quiet():  # reads task files, and so imports lm-eval
        return suites.parts(task, given, limit, sampling.samples)


def _check(
    tasks: Sequence[str],
    tokenizer: Any,
    limit: int | None,
    batch_size: int,
    chat_template: bool,
    custom_rows: Sequence[Mapping[str, Any]] | None,
) -> None:
    if not tasks:
        raise RequestError(f"no task to score: choose from {', '.join([*TASKS, *SUITES])}")
    own = [*TASKS, *SUITES]
    for task in tasks:  # a typing error must not cost the indexing of lm-eval's tasks
        if task not in own and difflib.get_close_matches(task, own, cutoff=0.8):
            raise _unknown(task, own)
    if (limit is not None and limit < 1) or batch_size < 1:
        raise RequestError(
            f"eval.limit={limit}, eval.batch_size={batch_size}: both must be at least 1 (limit: or null)"
        )
    if chat_template and not getattr(tokenizer, "chat_template", None):
        raise RequestError("chat_template=true, but the tokenizer has none: set model.chat_template=false")
    if "custom" in tasks and not custom_rows:
        raise RequestError(
            "task custom has no test rows: give data.test=<file.jsonl> with prompt, answer and id"
        )


def _unknown(name: str, known: Iterable[str]) -> RequestError:
    own = ", ".join([*TASKS, *SUITES])
    return RequestError(
        f"no task {name!r}{nearest(name, known)}: pkt has {own}; `lm-eval ls tasks` lists the others"
    )


def _simple_evaluate(
    scorer: Any,
    names: Sequence[str],
    configs: Sequence[dict[str, Any]],
    limit: int | None,
    settings: dict[str, Any],
    chat_template: bool,
    metadata: dict[str, Any],
) -> dict[str, Any]:
    """Run lm-eval without its bootstrap (errors are ours) and without touching any random state."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    own = {part for parts in TASKS.values() for part in parts}
    manager = TaskManager(
        include_defaults=not own.issuperset(names),
        include_path=str(FOLDER),
        metadata=metadata,  # handed to the functions in `docs`
    )
    for name in names:
        if name not in manager.task_index:
            raise _unknown(name, [*TASKS, *SUITES, *manager.all_tasks])
    try:
        found: dict[str, Any] = lm_eval.simple_evaluate(
            model=scorer,
            tasks=[*names, *configs],
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            gen_kwargs=settings or None,
            apply_chat_template=chat_template,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
            fewshot_random_seed=1234,
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        asked = [*names, *(str(config["task"]) for config in configs)]
        raise PktError(f"lm-eval could not score {', '.join(asked)}: {reason}") from error
    return found


def _collect(
    tasks: Sequence[str],
    real: Mapping[str, Sequence[suites.Part]],
    found: Mapping[str, Any],
    scorer: Any,
    timeout: float,
) -> Evaluation:
    """Grade pkt's tasks and the real benchmarks, take over lm-eval's numbers for the others."""
    scores: list[TaskScore] = []
    samples: dict[str, list[dict[str, Any]]] = {}
    logged: dict[str, list[Mapping[str, Any]]] = {}
    for task in dict.fromkeys(tasks):
        for name in TASKS.get(task, ()):
            ordered = sorted(found["samples"][name], key=lambda sample: int(sample["doc_id"]))
            records = grading.grade(name, ordered, scorer.hits, timeout)
            samples.setdefault(task, records)
            scores += grading.scores(task, name, records)
            logged.setdefault(task, []).extend(ordered)
        if task in real:
            graded, samples[task] = suites.grade(task, real[task], found["samples"], timeout)
            scores += graded
            logged[task] = [sample for part in real[task] for sample in found["samples"][part.name]]
    own = {part for parts in TASKS.values() for part in parts}
    own |= {part.name for of in real.values() for part in of}
    for name in [name for name in found["samples"] if name not in own]:
        logged[name], results = found["samples"][name], found["results"].get(name, {})
        higher = found["higher_is_better"].get(name, {})
        scores += grading.stock_scores(name, logged[name], higher, results)
        samples[name] = grading.stock_records(logged[name], results)
    cut = {task: count for task, of in logged.items() if (count := _cut(of, scorer.cut))}
    return Evaluation(scores=tuple(scores), samples=samples, versions=_versions(found), cut=cut)


def _cut(logged: Sequence[Mapping[str, Any]], contexts: Collection[str]) -> int:
    """Count the prompts of a task that lost their head."""
    asked = {str(argument[0]) for sample in logged for argument in sample["arguments"]}
    return len(asked & set(contexts))


def _versions(found: Mapping[str, Any]) -> dict[str, str]:
    from importlib.metadata import version

    return {"lm_eval": version("lm_eval")} | {task: str(number) for task, number in found["versions"].items()}


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
