"""Rows and prompts as each model of a pair reads them.

one vocabulary    -> the student's tokens, for both
two vocabularies  -> the tokens of each, and the positions at which both have read the same text (`pkt.data.meeting`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from pkt import console
from pkt.config import MeetingConfig
from pkt.data import notes
from pkt.data.anchors import anchors
from pkt.data.batching import position_counts
from pkt.data.digests import texts_of
from pkt.data.encoding import Encoded, as_read, encode, encode_prompt
from pkt.data.meeting import VERSION as MEETING
from pkt.data.meeting import met, thinned
from pkt.data.spelling import Spelling
from pkt.errors import RequestError
from pkt.late import Tensor, torch
from pkt.models.load import load_config, load_tokenizer
from pkt.models.pair import PairReport, check_pair, read_otherwise
from pkt.models.source import locate
from pkt.remembered import recall, remember

if TYPE_CHECKING:
    from pkt.methods.workbench import Workbench

_LOOKED_AT = 1000  # rows that both tokenizers read, to compare


def tokenizer_of(bench: Workbench, role: str) -> Any:
    """Return the tokenizer with which a model reads rows: of one vocabulary the student's."""
    if role != "teacher" or bench.one_vocabulary:
        return bench.tokenizer
    if "teacher" in bench.__dict__:
        return bench.teacher.tokenizer
    return load_tokenizer(bench.pair.teacher, cache_dir=bench.cache_dir)


def tokenizers(bench: Workbench) -> list[Any]:
    """Return the tokenizers with which rows are read, each once."""
    return [bench.tokenizer] if bench.one_vocabulary else [bench.tokenizer, tokenizer_of(bench, "teacher")]


def tell(bench: Workbench) -> None:
    """Tell what is to be known of the pair before the teacher reads rows.

    That it has the student's tokens, and reads some texts alike, does not say that it would read all rows alike.
    """
    bench.note(*bench.pair_report.warnings)
    if bench.pair.student.init == "prune" or not bench.one_vocabulary:
        return
    own = load_tokenizer(bench.pair.teacher, cache_dir=bench.cache_dir)
    rows = bench.splits["train"].rows[:_LOOKED_AT]
    prompts = as_read([row["prompt"] for row in rows], bench.tokenizer, bench.chat)
    texts = [prompt + row["answer"] for prompt, row in zip(prompts, rows, strict=True)]
    if found := read_otherwise(own, bench.tokenizer, texts):
        bench.note(
            f"train: {found}. The teacher has the same tokens and is given the student's: what it says of them may be "
            "worth less"
        )


def one_vocabulary(bench: Workbench) -> bool:
    """Return whether teacher and student give the same ids to the same tokens; it is remembered of local models."""
    if bench.pair.student.init == "prune":
        return True
    specs = (bench.pair.teacher, bench.pair.student)
    if any(locate(spec, who).kind == "hub" for spec, who in zip(specs, ("teacher", "student"), strict=True)):
        return not check_pair(
            bench.pair, cache_dir=bench.cache_dir
        ).differ  # its files may be others tomorrow
    name = f"tokenizers-{bench.teacher_fingerprint}-{bench.student_fingerprint}.json"
    file = bench.cache_dir.with_name("models") / name
    if known := recall(file, "the tokenizers are compared again"):
        return bool(known["one"])
    one = not check_pair(bench.pair, cache_dir=bench.cache_dir).differ
    remember(file, {"one": one})
    return one


def report(bench: Workbench) -> PairReport:
    """Return what the two vocabularies have in common; of two vocabularies, the tokens of the same bytes."""
    found = check_pair(bench.pair, cache_dir=bench.cache_dir)
    if not found.differ:
        return found
    teacher, student = (Spelling.of(tokenizer_of(bench, role), role) for role in ("teacher", "student"))
    configs = (
        load_config(bench.pair.teacher, cache_dir=bench.cache_dir),
        load_config(bench.pair.student, teacher=bench.pair.teacher, cache_dir=bench.cache_dir),
    )
    ends = reply_end(bench, "teacher"), reply_end(bench, "student")
    ids = anchors(teacher, student, (int(configs[0].vocab_size), int(configs[1].vocab_size)), ends)
    told = f"teacher and student have two vocabularies ({found.differ}); {len(ids[0])} tokens stand for the same bytes"
    theirs, own = (torch.tensor(side, dtype=torch.int64) for side in ids)
    if bench.config.meeting.anchors == "shuffled":
        theirs = theirs[
            torch.randperm(len(theirs), generator=torch.Generator().manual_seed(bench.config.seed))
        ]
    return replace(found, teacher_ids=theirs, student_ids=own, warnings=(told, *found.warnings))


def read_by(bench: Workbench, role: str, split: str, *, labelled: bool = False) -> Encoded:
    """Return the rows of a split as a model reads them.

    Args:
        bench: of the request.
        role: ``teacher``, or any other for the student's tokens.
        split: of the rows.
        labelled: those with labels; otherwise the teacher's answers are among them, as a training reads them.
    """
    read = bench.labelled if labelled else bench.encoded
    if bench.one_vocabulary:
        return read(split)
    answered = [] if labelled or split != "train" else bench.answered
    if (key := (split, len(answered))) not in bench.met:
        alone = bool(answered) and bench.config.data.unlabelled is None
        rows = [*(() if alone else bench.splits[split].rows), *answered]
        own, teacher = read(split), tokenizer_of(bench, "teacher")
        theirs = encode(rows, teacher, **_limits(bench), who="teacher")
        bench.note(*notes.unwritable(split, rows, teacher, "teacher"))
        if bench.chat is None:
            bench.note(*notes.inside_tokens(f"{split}, as the teacher reads it", rows, theirs, teacher))
        student, other = met(rows, (bench.tokenizer, own), (teacher, theirs), bench.chat)
        if (part := bench.config.meeting.share) < 1:
            student, other = thinned(rows, (student, other), part, bench.config.seed)
        bench.met[key] = {"student": student, "teacher": other}
        (shared, whole), same = share(student), sum(position_counts(student, "token"))
        console.note(
            f"{split}: both models have read the same text at {shared:,} of {whole:,} positions that predict an answer "
            f"token, and are compared there; at {same:,} of them both read the same token next"
        )
    return bench.met[key]["teacher" if role == "teacher" else "student"]


def compared(bench: Workbench, role: str, split: str) -> Encoded:
    """Return the rows of a split at which both models are compared, as one of them reads them; see `read_by`.

    Raises:
        RequestError: nowhere have both models read the same text, in a split that something is learnt from.
    """
    found = read_by(bench, role, split)
    if split != "validation" and found.met is not None and not share(found)[0]:
        raise RequestError(
            f"nowhere in the {split} split have both models read the same text, so nothing of the teacher would reach "
            f"the student there (meeting.share={bench.config.meeting.share}): look at the rows as both read them (pkt "
            "rows), take method=sft or seqkd, which compare no positions, or another teacher."
        )
    return found


def share(encoded: Encoded) -> tuple[int, int]:
    """Return at how many answer positions both models have read the same text, and how many there are."""
    return sum(position_counts(encoded, "answer")), sum(
        position_counts(replace(encoded, met=None, follows=None), "answer")
    )


def _limits(bench: Workbench) -> dict[str, Any]:
    return {"max_length": bench.max_length, "chat": bench.chat}


def digests(bench: Workbench, models: Iterable[str], splits: Iterable[str]) -> dict[str, Any]:
    """Return the identity of labelled rows as the models see them: of two vocabularies, as each of both does.

    Args:
        bench: of the request.
        models: that read the rows.
        splits: names of the rows.
    """
    found: dict[str, Any] = {"rows": {split: bench.digest(split) for split in splits}}
    if found["rows"] and {"teacher", "student"} <= set(models) and not bench.one_vocabulary:
        found["rows_of_the_teacher"] = {split: teacher_digest(bench, split) for split in found["rows"]}
        found["meeting"] = meeting(bench)
    return found


def meeting(bench: Workbench) -> int | dict[str, Any]:
    """Return what decides where two tokenizers are compared, for keys: the rules, and what of them is left out."""
    own = asdict(bench.config.meeting)
    if own == asdict(MeetingConfig()):
        return MEETING
    return {"rules": MEETING, **own, "seed": bench.config.seed}


def teacher_digest(bench: Workbench, split: str, chosen: Sequence[int] | None = None) -> str:
    """Return the identity of labelled rows, or some by index, as a teacher with its own tokenizer reads them."""
    whole = bench.splits[split].rows
    rows = whole if chosen is None else [whole[index] for index in chosen]

    def tokenised() -> Encoded:
        return encode(rows, tokenizer_of(bench, "teacher"), **_limits(bench), who="teacher")

    texts = texts_of(rows, bench.how | {"tokenizer": bench.teacher_fingerprint})
    return bench.remembered(texts, tokenised)


def prompts_digest(bench: Workbench) -> str:
    """Return the identity of the prompts without labels as the teacher reads them: tokens, order."""

    def tokenised() -> Encoded:
        tokenizer = tokenizer_of(bench, "teacher")
        texts = as_read([prompt.text for prompt in bench.prompts], tokenizer, bench.chat, reader(bench))
        ids = [encode_prompt(tokenizer, text) for text in texts]
        return Encoded(input_ids=ids, prompt_lengths=[len(own) for own in ids])

    rows = [{"prompt": prompt.text, "answer": ""} for prompt in bench.prompts]
    how = bench.how if bench.one_vocabulary else bench.how | {"tokenizer": bench.teacher_fingerprint}
    return bench.remembered(texts_of(rows, how | {"rows": "prompts"}), tokenised)


def begins_word(bench: Workbench, role: str) -> Tensor:
    """Return which tokens of a model begin a word with a space, or end a text: (V) bool."""
    tokenizer = tokenizer_of(bench, role)
    spelling = Spelling.of(tokenizer, role)
    found = torch.zeros(max(tokenizer.get_vocab().values()) + 1, dtype=torch.bool)
    for index in tokenizer.get_vocab().values():
        found[index] = index not in spelling.special and spelling.of_token(index)[:1].isspace()
    if (end := reply_end(bench, role)) is not None:
        found[end] = True
    return found


def counts_rest(bench: Workbench) -> bool:
    """Return whether the tokens of two vocabularies that only one of them has count, as one; both have to have some."""
    if bench.one_vocabulary:
        return False
    sizes = int(bench.teacher_config.vocab_size), int(bench.student_config.vocab_size)
    return min(sizes) > len(bench.pair_report.student_ids)


def reply_end(bench: Workbench, role: str) -> int | None:
    """Return the token that ends what a model writes: in a chat template the reply's, else the tokenizer's own."""
    tokenizer = tokenizer_of(bench, role)
    end: int | None = tokenizer.eos_token_id if bench.chat is None else bench.chat.end(tokenizer)
    return end


def reader(bench: Workbench) -> str:
    """Return whose tokenizer the teacher reads with, for messages."""
    return "student" if bench.one_vocabulary else "teacher"


def answer_ends(bench: Workbench) -> list[int]:
    """Return the tokens at which the teacher's answers end and of which its own files say nothing."""
    own, tokenizer = bench.generation("teacher").get("eos_token_id"), tokenizer_of(bench, "teacher")
    if tokenizer.eos_token_id is None:
        return []  # refused where prompts are read
    turn = tokenizer.eos_token_id if bench.chat is None else bench.chat.end(tokenizer)
    return sorted({tokenizer.eos_token_id, turn} - set(own if isinstance(own, list) else [own]))
