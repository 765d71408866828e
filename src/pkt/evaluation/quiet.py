"""Silence lm-eval and transformers while they score."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from unittest import mock

from pkt.loggers import errors_alone


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval and transformers: log chatter, progress bars, git and environment probes, known warnings."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.filterwarnings(
            "ignore", category=DeprecationWarning, module=r"(lm_eval|datasets|evaluate|jinja2)"
        )
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(lm_eval|datasets|transformers)")
        stack.enter_context(errors_alone("lm_eval", "transformers", "datasets"))
        _patch(stack)
        yield


def _patch(stack: contextlib.ExitStack) -> None:
    """Switch off side jobs of lm-eval: a progress bar per task, `git describe`, `pip list`."""
    import lm_eval.api.task
    import lm_eval.evaluator

    bar = functools.partial(lm_eval.api.task.tqdm, disable=True)
    stack.enter_context(mock.patch.object(lm_eval.api.task, "tqdm", bar))
    stack.enter_context(mock.patch.object(lm_eval.evaluator, "get_git_commit_hash", return_value=None))
    stack.enter_context(mock.patch.object(lm_eval.evaluator, "add_env_info"))
