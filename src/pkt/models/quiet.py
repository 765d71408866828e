"""Keep transformers' own reports, bars and warnings off the console."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pkt.late import transformers


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' bars and reports; missing weights are checked by `load_model` itself."""
    logs = transformers.utils.logging
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # transformers 5 warns peft 0.21 about a name that peft reads
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()
