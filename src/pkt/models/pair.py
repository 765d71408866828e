"""Load a teacher and a student, and compare their vocabularies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pkt.config import CheckpointSpec, PairConfig
from pkt.errors import RequestError
from pkt.late import Tensor, torch
from pkt.manifest import check_loaded
from pkt.models.architecture import Architecture
from pkt.models.fingerprint import fingerprint
from pkt.models.known_tokens import guard
from pkt.models.load import declared_roles, load_config, load_model, load_tokenizer
from pkt.models.probe import probed
from pkt.models.roles import KEPT_ROLES

_EXAMPLES = 2
_SHOWN = 60  # characters of a text
READ = (
    "What is 1234 + 3.50?",
    "def f(x):\n    return x[0] != 'a'\n\n\nclass B_2:\n\tpass",
    "Hello HELLO heLLo",
    "it's they'LL don\u2019t",
    " two  spaces   three ",
    "na\u00efve e\u0301t\u00e9 \u00dcber \uff21\uff22 \ufb01n",
    "\u65e5\u672c\u8a9e\u306e\u6587",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u0645\u0631\u062d\u0628\u0627",
    "\U0001f600\U0001f44d\U0001f3fd",
    "a\r\nb\n\n \u00a0c",
    "(a+b)*c==d, [e]; {f}: <g>&amp;h",
    "https://x.org/a-b?c=d#e",
)
"""Texts that tokenizers of one vocabulary may cut in different ways, or begin with different tokens."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A loaded model, its tokenizer, and its parts by role."""

    model: Any
    tokenizer: Any
    arch: Architecture


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """What two vocabularies have in common.

    Attributes:
        teacher_ids: the teacher's ids of the tokens that both models have, (A,) int64.
        student_ids: the student's ids of the same tokens, in the same order; the same ids in one vocabulary.
        differ: how the vocabularies differ; empty where they are one.
        warnings: what a reader of the results should be warned of.
    """

    teacher_ids: Tensor
    student_ids: Tensor
    differ: str = ""
    warnings: tuple[str, ...] = ()


def load_teacher(pair: PairConfig, cache_dir: Path | None, device: torch.device | str) -> LanguageModel:
    """Load the teacher of a pair, and probe it; it refuses to read tokens that it does not know."""
    _check_named(pair.teacher, "teacher")
    teacher = _probed(_load(pair.teacher, None, cache_dir, device), fingerprint(pair.teacher), cache_dir)
    guard(teacher.arch, teacher.tokenizer)
    return teacher


def load_student(pair: PairConfig, cache_dir: Path | None, device: torch.device | str) -> LanguageModel:
    """Load the student of a pair, or cut it from the teacher (`init=prune`), and probe it."""
    _check_named(pair.student, "student")
    identity = fingerprint(pair.student, teacher=pair.teacher)
    return _probed(_load(pair.student, pair.teacher, cache_dir, device), identity, cache_dir)


def load_checkpoint(
    folder: Path, device: torch.device | str, *, roles: Mapping[str, Any] | None = None
) -> LanguageModel:
    """Load a model folder in the dtype in which it was saved.

    Args:
        folder: what `transfer` or a user saved.
        device: where the model goes.
        roles: module roles, for a folder whose config does not keep them.
    """
    spec = CheckpointSpec(checkpoint=str(folder))
    config = load_config(spec, teacher=spec)  # messages call it a student, which it is
    spec.dtype = str(getattr(config, "dtype", None) or torch.float32).removeprefix("torch.")
    spec.roles = dict(getattr(config, KEPT_ROLES, None) or roles or {})
    return _load(spec, spec, None, device)


def _check_named(spec: CheckpointSpec, who: str) -> None:
    folder = Path(spec.checkpoint or "").expanduser()
    if spec.checkpoint and folder.is_dir():
        check_own(folder, f"model.{who}.checkpoint={spec.checkpoint}")


def check_own(folder: Path, named: str) -> None:
    """Refuse a model folder of pkt's store whose files were changed since they were written.

    Args:
        folder: any folder of a model; one that is not in a store has nothing to be compared with.
        named: the setting that names it, with its value.

    Raises:
        RequestError: it was changed.
    """
    try:
        check_loaded(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{named}: this checkpoint of pkt's is damaged ({error}); run the command again that made it (its card "
            "has it), or copy it out of the store if you changed it yourself"
        ) from error


def _load(
    spec: CheckpointSpec, teacher: CheckpointSpec | None, cache_dir: Path | None, device: torch.device | str
) -> LanguageModel:
    model = load_model(spec, cache_dir, device, teacher=teacher)
    if declared := declared_roles(spec, teacher):
        setattr(model.config, KEPT_ROLES, declared)  # so that the folder it is saved to needs no declaration
    return LanguageModel(
        model=model,
        tokenizer=load_tokenizer(spec, teacher=teacher, cache_dir=cache_dir),
        arch=Architecture.of(model, declared),
    )


def _probed(loaded: LanguageModel, identity: str, cache_dir: Path | None) -> LanguageModel:
    """Let a model's architecture know what its probe found; probes are kept beside the converted checkpoints."""
    _check_ends(loaded)
    folder = cache_dir.with_name("probes") if cache_dir is not None else None
    loaded.arch.probe = probed(loaded.arch, loaded.tokenizer, identity, folder)
    return loaded


def _check_ends(loaded: LanguageModel) -> None:
    """Refuse a model without a row for the tokens that stand around every text.

    Raises:
        RequestError: there is none for its EOS, or for what its tokenizer puts before a text.
    """
    tokenizer, rows = loaded.tokenizer, loaded.arch.rows
    around = [tokenizer.eos_token_id, *_read(tokenizer, "a")[:1]]
    beyond = [index for index in around if index is not None and index >= rows]
    if beyond:
        named = f"{tokenizer.convert_ids_to_tokens(beyond[0])!r} (id {beyond[0]})"
        raise RequestError(
            f"{loaded.model.config.model_type}: the token {named} of its tokenizer stands in every row, and its "
            f"embedding has {rows} rows: take the tokenizer of these weights, or save the model after "
            "model.resize_token_embeddings(len(tokenizer))"
        )


def check_pair(pair: PairConfig, *, cache_dir: Path | None = None) -> PairReport:
    """Compare the vocabularies of a pair's models, without loading weights; see `compare_vocabularies`."""
    return compare_vocabularies(
        load_tokenizer(pair.teacher, cache_dir=cache_dir),
        load_tokenizer(pair.student, teacher=pair.teacher, cache_dir=cache_dir),
        load_config(pair.teacher, cache_dir=cache_dir),
        load_config(pair.student, teacher=pair.teacher, cache_dir=cache_dir),
    )


def compare_vocabularies(teacher: Any, student: Any, teacher_config: Any, student_config: Any) -> PairReport:
    """Compare two tokenizers id by id.

    The rows of a head beyond its tokenizer are padding, and a tokenizer may have added tokens at its end that the
    other lacks (WizardCoder's 32,001st). Neither counts as shared. Where an id stands for different tokens, or one
    vocabulary has ordinary tokens beyond the other, there are two vocabularies, and no id is shared. So it is where
    both have the same tokens and read a text as different ones (digits one by one, or a BOS before it): what the
    teacher would never read means nothing to it.
    """
    teacher_tokens, student_tokens = _tokens(teacher), _tokens(student)
    differ = (
        _differing(teacher_tokens, student_tokens)
        or _beyond("teacher", teacher, teacher_tokens, student_tokens)
        or _beyond("student", student, student_tokens, teacher_tokens)
        or (f"the tokens are the same, but {found}" if (found := read_otherwise(teacher, student)) else "")
    )
    rows = min(int(teacher_config.vocab_size), int(student_config.vocab_size))
    common = () if differ else teacher_tokens.keys() & student_tokens.keys()
    shared = torch.tensor([i for i in sorted(common) if i < rows], dtype=torch.int64)
    notes = list(_warnings(teacher_config, student_config))
    if not differ and len(teacher_tokens) != len(student_tokens):
        notes.append(
            f"added tokens differ: the teacher has {len(teacher_tokens)} tokens, the student {len(student_tokens)}; "
            "only shared ids are used"
        )
    return PairReport(teacher_ids=shared, student_ids=shared, differ=differ, warnings=tuple(notes))


def _tokens(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _differing(teacher: dict[int, str], student: dict[int, str]) -> str:
    common = range(min(max(teacher), max(student)) + 1)
    differing = [i for i in common if teacher.get(i) != student.get(i)]
    if not differing:
        return ""
    examples = "; ".join(
        f"id {i}: teacher {teacher.get(i)!r}, student {student.get(i)!r}" for i in differing[:_EXAMPLES]
    )
    return f"{len(differing)} of {len(common)} token ids differ: {examples}"


def _beyond(who: str, tokenizer: Any, own: dict[int, str], other: dict[int, str]) -> str:
    """Say which tokens, other than added ones, lie beyond the other vocabulary's end."""
    end, added = max(other), tokenizer.added_tokens_decoder  # a slow property: read once
    extra = [i for i in own if i > end and i not in added]
    if not extra:
        return ""
    examples = "; ".join(f"id {i}: {own[i]!r}" for i in sorted(extra)[:_EXAMPLES])
    return f"the {who} has {len(extra)} tokens that the other lacks: {examples}"


def read_otherwise(teacher: Any, student: Any, texts: Sequence[str] = READ) -> str:
    """Say which of some texts two tokenizers read as different tokens; nothing where there is none."""
    read = ([_read(own, text) for text in texts] for own in (teacher, student))
    differing = [one for one in zip(texts, *read, strict=True) if one[1] != one[2]]
    if not differing:
        return ""
    text, theirs, own = differing[0]
    at = next((i for i, (a, b) in enumerate(zip(theirs, own, strict=False)) if a != b), 0)
    first = (
        tokenizer.convert_ids_to_tokens(ids[at : at + 3])
        for tokenizer, ids in ((teacher, theirs), (student, own))
    )
    return (
        f"{len(differing)} of {len(texts)} texts are read as different ones: of {text[:_SHOWN]!r} the teacher reads "
        f"{next(first)} from token {at + 1} on, the student {next(first)}"
    )


def _read(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text; none where the tokenizer cannot read it, as one without a token for the unknown."""
    try:
        found: list[int] = tokenizer(text)["input_ids"]
    except Exception:  # tokenizers raises nothing narrower
        return []
    return found


def _warnings(teacher_config: Any, student_config: Any) -> Iterator[str]:
    for who, config in (("teacher", teacher_config), ("student", student_config)):
        if cap := getattr(config, "final_logit_softcapping", None):
            yield f"the {who} soft-caps its logits at {cap:g}: the output cosine needs logits (slower)"
        if getattr(config, "lm_head_bias", False):
            yield f"the {who}'s head has a bias: the output cosine needs logits (slower)"
