"""Models, rows and strategies of one request, loaded when first asked for.

A stage whose result is in the store never touches the models of the workbench, so nothing is loaded for it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from pkt import console
from pkt.config import Config
from pkt.data.encoding import Encoded, encode
from pkt.data.lengths import Fitting
from pkt.mapping import Mapping
from pkt.models.fingerprint import fingerprint
from pkt.models.load import context_length, load_config, load_tokenizer
from pkt.models.pair import LanguageModel, PairReport, check_pair, load_student, load_teacher
from pkt.objectives import Objective
from pkt.semantics import Semantics
from pkt.tasks.splits import load_splits
from pkt.training.meter import Meter

Track = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""``with track("what", total) as advance:`` shows progress; ``advance(n)`` moves it."""

Log = Callable[[int, dict[str, float]], None]
"""Takes the step and the metrics of one optimiser step."""


@contextmanager
def untracked(_what: str, _total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda _n: None


@dataclass(kw_only=True)
class Workbench:
    """Everything a method works on.

    Attributes:
        config: the resolved request.
        mapping, semantics, objective: the strategies built from it.
        device: where models run.
        cache_dir: where converted checkpoints are kept.
        track: progress display.
        log: takes training metrics.
        teacher_meter, student_meter: forward tokens of this request.
    """

    config: Config
    mapping: Mapping
    semantics: Semantics
    objective: Objective
    device: torch.device
    cache_dir: Path
    track: Track = untracked
    log: Log = field(default=lambda _step, _metrics: None)
    teacher_meter: Meter = field(default_factory=Meter)
    student_meter: Meter = field(default_factory=Meter)

    @cached_property
    def teacher_config(self) -> Any:
        """The teacher's transformers config; no weights are read."""
        return load_config(self.config.model.teacher, cache_dir=self.cache_dir)

    @cached_property
    def student_config(self) -> Any:
        """The student's transformers config; no weights are read."""
        pair = self.config.model
        return load_config(pair.student, teacher=pair.teacher, cache_dir=self.cache_dir)

    @cached_property
    def teacher_fingerprint(self) -> str:
        """Identity of the teacher, from its files; no weights are loaded."""
        return fingerprint(self.config.model.teacher)

    @cached_property
    def student_fingerprint(self) -> str:
        """Identity of the untouched student."""
        return fingerprint(self.config.model.student, teacher=self.config.model.teacher)

    @cached_property
    def teacher(self) -> LanguageModel:
        """The teacher, frozen."""
        return load_teacher(self.config.model, self.cache_dir, self.device)

    @cached_property
    def student(self) -> LanguageModel:
        """The student; `transfer` changes it, so `release` it before it is used again."""
        return load_student(self.config.model, self.cache_dir, self.device)

    @cached_property
    def pair_report(self) -> PairReport:
        """Check that the two vocabularies line up.

        Raises:
            RequestError: they do not.
        """
        return check_pair(self.config.model, cache_dir=self.cache_dir)

    def release(self, *names: str) -> None:
        """Free models that are no longer needed (``teacher``, ``student``)."""
        for name in names:
            self.__dict__.pop(name, None)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def splits(self) -> dict[str, Dataset]:
        """Rows of the extract, align, train and validation splits; what is too long for them is told."""
        found = load_splits(self.config.benchmark, self.config.data, self.fitting)
        for pool, (count, total) in self.fitting.dropped.items():
            console.warn(
                f"{pool}: {count} of {total} rows have more than {self.max_length} tokens (data.max_length, the "
                "models' contexts) and are left out before the splits are drawn."
            )
        return found

    @cached_property
    def fitting(self) -> Fitting:
        """What leaves out rows of the real suites that are too long; no weights are read."""
        pair = self.config.model
        return Fitting(
            tokenizer=lambda: load_tokenizer(pair.student, teacher=pair.teacher, cache_dir=self.cache_dir),
            max_length=self.max_length,
            chat_template=pair.chat_template,
        )

    @cached_property
    def max_length(self) -> int:
        """Tokens per row: what the user says, or the smaller of the two contexts."""
        contexts = min(context_length(self.teacher_config), context_length(self.student_config))
        return min(self.config.data.max_length or contexts, contexts)

    def encoded(self, split: str) -> Encoded:
        """Return the tokenised rows of a split (teacher and student share the vocabulary)."""
        if split not in self._encoded:
            self._encoded[split] = encode(
                self.splits[split],
                self.student.tokenizer,
                max_length=self.max_length,
                chat_template=self.config.model.chat_template,
            )
        return self._encoded[split]

    _encoded: dict[str, Encoded] = field(default_factory=dict, init=False)
