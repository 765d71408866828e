"""`pkt rows`: rows as the models see them, before anything trains. No weights are read.

    rows of every split ──> tokens: lengths, share that is supervised     scored rows ──> how many are trained on too
                        ──> some of them in full, the supervised part marked and, on a terminal, in colour

It is no stage: nothing of it is in the store.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pkt import console
from pkt.config import SPLITS
from pkt.data.encoding import Encoded, as_read, encode, encode_prompt
from pkt.durable import write_atomically
from pkt.methods.readings import read_by, reader, share, tokenizer_of
from pkt.methods.workbench import Workbench
from pkt.run_files import ROWS
from pkt.stages import evaluate

UNFINISHED = "\ufffd"  # the first bytes of a letter whose others are in the next token
BEGIN, END = "⟦", "⟧"  # around what is supervised
PROMPTS = "unlabelled"  # what the teacher answers
COLUMNS = ("split", "rows", "tokens, median", "longest", "supervised, median", "longest answer", "share")


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of the rows of a split, EOS and BOS included.

    Attributes:
        rows: how many.
        median, longest: tokens of a row.
        supervised, longest_answer: positions of a row that are trained on: answer and end.
        share: of all tokens that is supervised.
        met: share of the supervised positions at which a teacher with its own vocabulary has read the same text, and is
            compared with the student; None: all, in one vocabulary.
    """

    rows: int
    median: float
    longest: int
    supervised: float
    longest_answer: int
    share: float
    met: float | None = None

    @classmethod
    def of(cls, encoded: Encoded) -> Lengths:
        """Measure rows, of which there is at least one."""
        own, total = share(encoded)
        whole = encoded.lengths
        answers = [length - prompt for length, prompt in zip(whole, encoded.prompt_lengths, strict=True)]
        return cls(
            rows=len(whole),
            median=statistics.median(whole),
            longest=max(whole),
            supervised=statistics.median(answers),
            longest_answer=max(answers),
            share=round(sum(answers) / sum(whole), 4),
            met=None if encoded.met is None else round(own / total, 4),
        )

    def cells(self) -> tuple[str, ...]:
        """Return what a table shows."""
        counts = (self.rows, self.median, self.longest, self.supervised, self.longest_answer)
        shares = (self.share, *(() if self.met is None else (self.met,)))
        return (*(f"{count:,.0f}" for count in counts), *(f"{100 * share:.0f} %" for share in shares))


def show(bench: Workbench, run_dir: Path) -> None:
    """Print and keep what is to be known of a request's rows.

    Args:
        bench: of the request.
        run_dir: gets rows.json.
    """
    config = bench.config.rows
    splits = {
        split: (list(bench.splits[split].rows), read_by(bench, "student", split, labelled=True))
        for split in SPLITS
    }
    asked = evaluate.asked(bench)
    for task, rows in asked.rows.items():
        known = [row for row in rows if {"prompt", "answer"} <= row.keys()]
        if known:
            encoded = encode(known, bench.tokenizer, max_length=sys.maxsize, chat=bench.chat)
            splits[f"test {task}"] = known, encoded
            if long := sum(length > bench.max_length for length in encoded.lengths):
                bench.note(
                    f"test {task}: {long} of {len(known)} rows have more than {bench.max_length} tokens; scoring reads "
                    "the end of their prompts"
                )
    if bench.config.data.unlabelled is not None:
        splits[PROMPTS] = _prompts(bench)
    elif PROMPTS in config.splits:
        console.warn(
            f"rows.splits={PROMPTS}: there are no prompts without labels; data.unlabelled=... names some"
        )
    evaluate.note_rows(bench, asked, answered=False)
    measured = {name: Lengths.of(encoded) for name, (_, encoded) in splits.items() if encoded.lengths}
    columns = COLUMNS if bench.one_vocabulary else (*COLUMNS, "compared with the teacher")
    cells = [(name, *found.cells()) for name, found in measured.items()]
    console.table("tokens", columns, [row + ("",) * (len(columns) - len(row)) for row in cells])
    shown = {}
    for name, (rows, encoded) in splits.items():
        if name.split()[0] in config.splits:
            shown[name] = [
                _seen(bench, name, row, encoded, index) for index, row in enumerate(rows[: config.show])
            ]
            for line in _lines(name, shown[name]):
                console.say(line)
    content = {
        "lengths": {name: asdict(found) for name, found in measured.items()},
        "notes": bench.notes,
        "rows": shown,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / ROWS, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    console.say(f"{'run':<11}{run_dir}")


def _prompts(bench: Workbench) -> tuple[list[Mapping[str, str]], Encoded]:
    """Return the prompts that the teacher will answer, as it reads them: rows of which nothing is supervised yet."""
    tokenizer = tokenizer_of(bench, "teacher")
    texts = as_read([prompt.text for prompt in bench.prompts], tokenizer, bench.chat, reader(bench))
    ids = [encode_prompt(tokenizer, text) for text in texts]
    rows: list[Mapping[str, str]] = [{"id": prompt.id, "prompt": prompt.text} for prompt in bench.prompts]
    return rows, Encoded(input_ids=ids, prompt_lengths=[len(own) for own in ids])


def _seen(
    bench: Workbench, split: str, row: Mapping[str, Any], encoded: Encoded, index: int
) -> dict[str, Any]:
    """Return a row as the models see it: every token as a text, and how many of them are the prompt's."""
    ids = list(encoded.input_ids[index])
    tokenizer = tokenizer_of(bench, "teacher") if split == PROMPTS else bench.tokenizer
    return {
        "id": row["id"],
        "prompt_tokens": encoded.prompt_lengths[index],
        "ids": ids,
        "tokens": list(pieces(tokenizer, ids)),
    }


def pieces(tokenizer: Any, ids: Sequence[int]) -> Iterator[str]:
    """Yield what each token adds to the text; a token alone may lose its space, or be half of a letter.

    The pieces together are the text of all tokens, but for bytes that never become a letter.
    """
    before = ""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count], clean_up_tokenization_spaces=False).rstrip(UNFINISHED)
        yield text[len(before) :] if text.startswith(before) else ""
        before = text


def _lines(split: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        cut = row["prompt_tokens"]
        prompt, answer = row["tokens"][:cut], row["tokens"][cut:]
        yield ""
        yield f"{split}, row {row['id']!r}: {len(prompt)} tokens of prompt, {len(answer)} that are supervised"
        yield "".join(prompt) + _coloured(f"{BEGIN}{''.join(answer)}{END}")
        yield _split(prompt) + " " + _coloured(f"{BEGIN}{_split(answer)}{END}")


def _split(tokens: Sequence[str]) -> str:
    """Return tokens one by one, line breaks written out."""
    return "|".join(token.replace("\n", "\\n") for token in tokens)


def _coloured(text: str) -> str:
    """Return a text in the terminal's green, where results are printed on one that knows colours."""
    return f"\x1b[32m{text}\x1b[0m" if console.has_colours() else text
