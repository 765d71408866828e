"""`pkt <verb> key=value ...`: verbs to Hydra, exceptions to one message and an exit code; nothing else.

    argv -> verb + flags first -> hydra.main(conf/<verb>.yaml) -> task -> pipeline.run_verb(cfg, run_dir)

Exit codes: 0 done, 1 the task failed, 2 the request was wrong, 130 stopped by Ctrl-C. torch is imported by
the pipeline only, so help, completion and config errors answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pkt import console
from pkt.errors import PktError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERBS = {
    "run": "all stages: extract, align, transfer, eval, report",
    "extract": "what to take from the teacher: layer scores, pairs, states",
    "align": "how it reads in the student's space: the alignment map",
    "transfer": "train the student; writes a model folder",
    "eval": "score teacher, student and transferred student with lm-eval",
}
INTERRUPTED = 130
_TAKES_VALUE = {"-c", "-p", "-cp", "-cn", "-cd", "--cfg", "--package", "--config-path", "--config-name"}
_TAKES_VALUE |= {"--config-dir", "--experimental-rerun"}
