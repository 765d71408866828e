"""Silence lm-eval and transformers while they score."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval and transformers: log chatter, progress bars, git and environment probes, known warnings."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers", "datasets")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.filterwarnings(
            "ignore", category=DeprecationWarning, module=r"(lm_eval|datasets|evaluate|jinja2)"
        )
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(lm_eval|datasets|transformers)")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            _patch(stack)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _patch(stack: contextlib.ExitStack) -> None:
    """Switch off side jobs of lm-eval: a progress bar per task, `git describe`, `pip list`."""
    import lm_eval.api.task
    import lm_eval.evaluator

    bar = functools.partial(lm_eval.api.task.tqdm, disable=True)
    stack.enter_context(mock.patch.object(lm_eval.api.task, "tqdm", bar))
    stack.enter_context(mock.patch.object(lm_eval.evaluator, "get_git_commit_hash", return_value=None))
    stack.enter_context(mock.patch.object(lm_eval.evaluator, "add_env_info"))
