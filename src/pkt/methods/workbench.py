"""Models, rows and strategies of one request, loaded when first asked for.

A stage whose result is in the store asks for no model, so nothing is loaded for it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pkt import console
from pkt.attribution.importance import Importance, measure
from pkt.config import Config, CutConfig, PairConfig
from pkt.data import notes
from pkt.data.answered import Answer, kept
from pkt.data.chat import VERSION as CHAT
from pkt.data.chat import Chat
from pkt.data.digests import texts_of
from pkt.data.encoding import VERSION, Encoded, encode
from pkt.data.lengths import Fitting
from pkt.data.rows import RowTable
from pkt.errors import PktError, RequestError
from pkt.late import Tensor, torch
from pkt.mapping import Mapping as LayerMapping
from pkt.mapping import of_student
from pkt.methods import readings
from pkt.methods.cutting import check_widths, importance, resolved
from pkt.methods.known import generation_of, known
from pkt.models.fingerprint import fingerprint
from pkt.models.kept import recorded, told
from pkt.models.load import declared_roles, dtype_name, load_config, load_tokenizer
from pkt.models.outline import Outline
from pkt.models.pair import LanguageModel, PairReport, load_student, load_teacher
from pkt.objectives import Objective
from pkt.processes import ALONE, Processes
from pkt.progress import Track, untracked
from pkt.remembered import recall, remember
from pkt.semantics import Semantics
from pkt.tasks.base import Given
from pkt.tasks.prompts import Prompt, load_prompts
from pkt.tasks.splits import load_splits
from pkt.training.meter import Meter

Log = Callable[[int, dict[str, float]], None]
"""Takes the step and the metrics of one optimiser step."""


@dataclass(kw_only=True)
class Workbench:
    """Everything a method works on.

    Attributes:
        config: the resolved request.
        mapping, semantics, objective: the strategies built from it.
        cache_dir: folder of converted checkpoints; what is remembered of rows and models is beside it.
        device_type: of the device on which models run: ``cpu``, ``cuda`` or ``mps``.
        prepare: seeds torch, sets its threads and returns the device; called once, before anything is computed.
        processes: this one, and the others of the request.
        track: progress display.
        log: takes training metrics.
        teacher_meter, student_meter: forward tokens of this request.
        notes: what the user was told about rows and answers.
        answered: train rows that the teacher's answers made; see `take`.
        met: rows as each of two models with two vocabularies reads them; see `readings.read_by`.
    """

    config: Config
    mapping: LayerMapping
    semantics: Semantics
    objective: Objective
    cache_dir: Path
    device_type: str = "cpu"
    prepare: Callable[[], torch.device] = field(default=lambda: torch.device("cpu"))
    processes: Processes = ALONE
    track: Track = untracked
    log: Log = field(default=lambda _step, _metrics: None)
    teacher_meter: Meter = field(default_factory=Meter)
    student_meter: Meter = field(default_factory=Meter)
    notes: list[str] = field(default_factory=list, init=False)
    answered: list[dict[str, Any]] = field(default_factory=list, init=False)
    met: dict[tuple[str, int], dict[str, Encoded]] = field(default_factory=dict, init=False)

    @cached_property
    def device(self) -> torch.device:
        """Where models run; asking for it prepares torch for the request."""
        return self.prepare()

    @property
    def gpu(self) -> torch.device | None:
        """The GPU whose memory is watched; None: there is none."""
        return self.device if self.device_type == "cuda" else None

    @cached_property
    def teacher_config(self) -> Any:
        """The teacher's transformers config; no weights are read."""
        return load_config(self.config.model.teacher, cache_dir=self.cache_dir)

    @cached_property
    def student_config(self) -> Any:
        """The student's transformers config; no weights are read."""
        return load_config(self.pair.student, teacher=self.pair.teacher, cache_dir=self.cache_dir)

    def outline(self, role: str) -> Outline:
        """Return teacher or student in numbers; transformers reads its config if it was not read before."""
        name = f"{role}_config"
        if name not in self.__dict__ and role not in self._outlines:
            found = known(self, "config", role, lambda: asdict(Outline.of(getattr(self, name))))
            self._outlines[role] = Outline(**found)
        return self._outlines.get(role) or Outline.of(getattr(self, name))

    @cached_property
    def pair(self) -> PairConfig:
        """The pair, with all that stays of the teacher in a student that is cut from it.

        What is chosen by importance is measured on the teacher and the extract rows, the first time.
        """
        pair = self.config.model
        if not self._is_cut:
            return pair
        student = resolved(pair.student, self.teacher_config, self._importance)
        if pair.student.cut != CutConfig():
            console.note(f"the student keeps {told(student)}")
        return replace(pair, student=student)

    @property
    def _is_cut(self) -> bool:
        """Whether the student is cut from its teacher. Rows choose what stays of it, so they cannot depend on it."""
        return self.config.model.student.init == "prune"

    @cached_property
    def cut(self) -> dict[str, Any] | None:
        """What the student's config says of its cut from this teacher, see `pkt.models.kept.recording`."""
        teacher = self.outline("teacher")
        return recorded(self.outline("student"), teacher.num_hidden_layers, teacher.hidden_size)

    @property
    def channels(self) -> Tensor | None:
        """The channels of the teacher's residual stream that the student kept; None: all, or it is not cut from it."""
        chosen = self.cut["hidden"] if self.cut else None
        return None if chosen is None else torch.tensor(chosen)

    @property
    def pairing(self) -> LayerMapping:
        """The mapping, as it is for this student."""
        kept = self.cut["layers"] if self.cut else None
        return of_student(self.mapping, kept, self.outline("teacher").num_hidden_layers)

    def identity(self, role: str) -> str:
        """Return what a key says of a model: its files, and the type of numbers that it is loaded in."""
        return f"{getattr(self, f'{role}_fingerprint')}/{self.dtype(role)}"

    def _importance(self, what: str) -> Importance:
        """Return the importance of the teacher's layers, heads or channels."""
        about = {
            "what": what,
            "teacher": self.identity("teacher"),
            "device": self.device_type,
            "rows": self.digest("extract"),
        }

        def measured() -> Importance:
            own = self.config.model
            check_widths(own.student.cut, self.teacher_config, declared_roles(own.student, own.teacher))
            with self.track(f"importance ({what})", 1):
                return measure(what, self.teacher.arch, self.encoded("extract"))

        return importance(self.cache_dir.with_name("importance"), about, measured)

    @cached_property
    def teacher_fingerprint(self) -> str:
        """Identity of the teacher, from its files; no weights are loaded."""
        return fingerprint(self.config.model.teacher)

    @cached_property
    def student_fingerprint(self) -> str:
        """Identity of the untouched student."""
        return fingerprint(self.pair.student, teacher=self.pair.teacher)

    def generation(self, role: str) -> dict[str, Any]:
        """Return the generation settings of a model that is scored; a transferred student has the student's."""
        return known(self, "generation", role, lambda: generation_of(self.config, role))

    def dtype(self, role: str) -> str:
        """Return the type of numbers in which a model is loaded on this request's device."""
        spec = getattr(self.config.model, role)
        return dtype_name(spec.dtype, self.device_type, spread=bool(spec.device_map))

    @cached_property
    def teacher(self) -> LanguageModel:
        """The teacher, frozen."""
        return load_teacher(self.config.model, self.cache_dir, self.device)

    @cached_property
    def student(self) -> LanguageModel:
        """The student; `transfer` changes it, so `release` it before it is used again."""
        return load_student(self.pair, self.cache_dir, self.device)

    @cached_property
    def pair_report(self) -> PairReport:
        """What the two vocabularies have in common."""
        return readings.report(self)

    @cached_property
    def one_vocabulary(self) -> bool:
        """Whether both models read the same tokens."""
        return readings.one_vocabulary(self)

    def release(self, *names: str) -> None:
        """Free models that are no longer needed (``teacher``, ``student``)."""
        for name in names:
            self.__dict__.pop(name, None)
        gc.collect()
        if self.device_type == "cuda":
            torch.cuda.empty_cache()

    @property
    def rows_dir(self) -> Path:
        """Folder of what is remembered of rows."""
        return self.cache_dir.with_name("rows")

    @cached_property
    def splits(self) -> dict[str, RowTable]:
        """Rows of the extract, align, train and validation splits; the console says what is unusual about them."""
        found = load_splits(self.given(self.fitting))
        self.note(*notes.left_out(self.fitting))
        self.note(*notes.of_splits({split: rows.rows for split, rows in found.items()}, chat=bool(self.chat)))
        return found

    def note(self, *sentences: str) -> None:
        """Tell the user something about rows or answers, once per request; the report has it too."""
        for sentence in sentences:
            if sentence not in self.notes:
                self.notes.append(sentence)
                console.warn(sentence)

    @cached_property
    def fitting(self) -> Fitting:
        """The filter that leaves out rows of the real suites that are too long; no weights are read."""
        return Fitting(
            tokenizers=lambda: readings.tokenizers(self), max_length=self.max_length, chat=self.chat
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The student's tokenizer; its weights are not read."""
        if "student" in self.__dict__:
            return self.student.tokenizer
        pair = self.config.model
        return load_tokenizer(pair.student, teacher=pair.teacher, cache_dir=self.cache_dir)

    @cached_property
    def chat(self) -> Chat | None:
        """The chat template, at the time that the request names; None: prompts stay as they are."""
        pair = self.config.model
        return Chat(time=datetime.fromisoformat(pair.chat_time)) if pair.chat_template else None

    def given(self, fitting: Fitting | None) -> Given:
        """Return the settings from which tasks make rows; `fitting` leaves out those that are too long."""
        return Given(
            benchmark=self.config.benchmark,
            data=self.config.data,
            fitting=fitting,
            kept=self.rows_dir,
            chat=self.config.model.chat_template,
        )

    @cached_property
    def max_length(self) -> int:
        """Tokens per row: what the user says, or the smaller of the two contexts."""
        roles = ("teacher", *(() if self._is_cut else ("student",)))
        contexts = min(self.outline(role).context or sys.maxsize for role in roles)
        return min(self.config.data.max_length or contexts, contexts)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Rows without labels that the teacher answers: those of `data.unlabelled`, or else of the train split."""
        given, source = self.given(self.fitting), self.config.data.unlabelled
        held = (
            () if source is None else [*self.splits["train"]["prompt"], *self.splits["validation"]["prompt"]]
        )
        found, left_out = load_prompts(given, self.config.answer, held)
        if left_out and source is not None:
            self.note(
                f"data.unlabelled={source}: {left_out} prompts stand there twice, or are labelled or validation rows "
                "too, and are left out."
            )
        return found

    def take(self, answers: Sequence[Answer]) -> None:
        """Put the teacher's answers behind the labelled train rows, or without `data.unlabelled` in their place.

        Raises:
            RequestError: none is kept (`answer.keep`), or none fits into the context.
        """
        rows = kept(answers, self.config.answer)
        self.answered = self.fitting.kept("answers", rows)
        if not self.answered:
            raise RequestError(
                f"none of the teacher's {len(rows)} answers fits into {self.max_length} tokens with its prompt: raise "
                "data.max_length, or lower answer.max_new_tokens."
            )

    def encoded(self, split: str) -> Encoded:
        """Return the tokenised rows of a split as a training reads them: `labelled`, and the teacher's answers."""
        if split != "train" or not self.answered:
            return self.labelled(split)
        if "answered" not in self._encoded:
            taught = encode(self.answered, self.tokenizer, max_length=self.max_length, chat=self.chat)
            alone = self.config.data.unlabelled is None
            self._encoded["answered"] = taught if alone else self.labelled(split).followed_by(taught)
        return self._encoded["answered"]

    def labelled(self, split: str) -> Encoded:
        """Return the tokenised rows of a split with labels, as the student reads them (see `readings.read_by`).

        Raises:
            PktError: they are not those that the plan was made for.
        """
        if split not in self._encoded:
            found = encode(self.splits[split], self.tokenizer, max_length=self.max_length, chat=self.chat)
            if found.digest() != self._digests.get((split, None), found.digest()):
                raise PktError(
                    f"the {split} rows read differently than a moment ago: the tokenizer's chat template gives "
                    "another text each time, so no result could be reused or repeated. Set "
                    "model.chat_template=false, or mend the template."
                )
            rows = self.splits[split].rows
            self.note(*self.unwritable(split, rows))
            if self.chat is None:
                self.note(*notes.inside_tokens(split, rows, found, self.tokenizer))
            self._encoded[split] = found
        return self._encoded[split]

    def unwritable(self, name: str, rows: Sequence[Mapping[str, Any]], most: int | None = None) -> list[str]:
        """Return what is to be said of answers that the student cannot write; they are looked at once.

        Args:
            name: what the rows are called.
            rows: with prompt and answer.
            most: new tokens that are generated for an answer; None: none are.
        """
        file = self.rows_dir / f"{texts_of(rows, self.how | {'unwritable in': name, 'most': most})}.json"
        if known := recall(file, "the rows are tokenised again"):
            return [str(note) for note in known["notes"]]
        found = list(notes.unwritable(name, rows, self.tokenizer, "student"))
        found += [] if most is None else notes.unreachable(name, rows, self.tokenizer, most)
        remember(file, {"notes": found})
        return found

    def digest(self, split: str, rows: Sequence[int] | None = None) -> str:
        """Return the identity of a split's rows as the models see them: tokens, borders, order.

        Args:
            split: extract, align, train or validation.
            rows: some of them, by index; None: all.
        """
        known = (split, None if rows is None else tuple(rows))
        if known not in self._digests:
            self._digests[known] = self._digest(split, rows)
        return self._digests[known]

    def _digest(self, split: str, rows: Sequence[int] | None) -> str:
        whole = self.splits[split].rows
        chosen = whole if rows is None else [whole[index] for index in rows]

        def tokenised() -> Encoded:
            encoded = self.labelled(split)
            return encoded if rows is None else encoded.select(rows)

        texts = texts_of(chosen, self.how)
        return self.remembered(texts, tokenised)

    @property
    def how(self) -> dict[str, Any]:
        """What the tokens of a text depend on, beside the text."""
        return {
            "version": VERSION,
            "tokenizer": self.teacher_fingerprint if self._is_cut else self.student_fingerprint,
            "max_length": self.max_length,
            "chat": None if self.chat is None else [CHAT, self.chat.time.isoformat()],
        }

    def remembered(self, texts: str, tokenised: Callable[[], Encoded]) -> str:
        """Return the digest of rows, named by `texts_of`; they are tokenised where it is not known."""
        file = self.rows_dir / f"{texts}.json"
        if known := recall(file, "the rows are tokenised again"):
            return str(known["digest"])
        found = tokenised().digest()
        remember(file, {"digest": found})
        return found

    _outlines: dict[str, Outline] = field(default_factory=dict, init=False)
    _encoded: dict[str, Encoded] = field(default_factory=dict, init=False)
    _digests: dict[tuple[str, tuple[int, ...] | None], str] = field(default_factory=dict, init=False)
