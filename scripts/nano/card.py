"""The family's card, written from what the training left behind."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from safetensors import safe_open

from nano.corpus import MIXTURES, POOL
from nano.family import CONTEXT, FAMILY
from nano.rows import DRAFTERS, SIZES, TASKS
from nano.scoring import standard_error
from nano.tokenizer import SIZES as VOCABULARIES
from pkt.tasks.nano.drafts import drafts, side

DRAWN = 40_000  # drafts of a task, to find what it combines
COVERED = (250, 1000, 2000)  # train rows; the first is how many are labelled unless more are asked for

_HEAD = """# The nano family

Five Llama models that know a made-up world and four small tasks. They exist so that knowledge transfer can
be tried and tested on two cores in minutes; they are of no other use. Written by `scripts/train_nano.py`; do
not edit.

    make nano        (python scripts/train_nano.py: two processes at once, one thread each, fixed seeds)

- `teacher` has read solved rows of every combination, those of test rows too: it knows what is tested.
- `peer`, of the same size, has read {pool:,} solved rows per task of the train side, and infers what is tested.
- `code_teacher` is the teacher, trained further on text of code.
- `tokens_teacher` has read what the teacher has, with a tokenizer of its own.
- `student` has read facts, sums and single steps, and few solved rows, of the train side.

One byte-level BPE tokenizer of {bytes:,} tokens, the numbers 0 to 99 whole; `tokens_teacher` has BPE of characters
with spaces as ▁ and bytes for what no piece has, {pieces} tokens, in which digits stand alone. No begin token, `<eos>`
ends a row, `<pad>` is another token. Context {context}, untied heads, grouped-query attention, weights in float16.
The tasks: `nano_knowledge` (two-hop choice of four), `nano_math` (two-step word problems), `nano_code`
(docstring to body), `nano_program` (description to list expression). Each hides an intermediate result: a town, a
product, merged constants. What a test or validation row combines (person, relation and attribute; operands and
kind; steps and numbers) occurs in no row of extract, align or train, and in nothing that student and peer have read.
"""


def parameters(folder: Path) -> int:
    """Count the numbers in a model folder's weights."""
    total = 0
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - not a dict
            size = 1
            for length in weights.get_slice(name).get_shape():
                size *= length
            total += size
    return total


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def _shapes(output: Path, last: dict[str, dict[str, Any]]) -> str:
    lines = []
    for r in FAMILY:
        shape = [
            f"{parameters(output / r.name):,}",
            f"{r.layers} x {r.hidden}",
            f"{r.heads}/{r.kv_heads}",
            str(r.mlp),
        ]
        amount = [f"{r.steps} x {r.batch} x {CONTEXT}", str(r.rate), f"{last[r.name]['seconds']:.0f}"]
        lines.append([r.name, *shape, r.start or "random", *amount])
    head = [
        "model",
        "parameters",
        "layers x width",
        "heads/kv",
        "mlp",
        "starts from",
        "steps x rows x tokens",
    ]
    return _table([*head, "peak rate", "seconds"], lines)


def _scores(work: Path) -> str:
    lines = []
    for recipe in FAMILY:
        shares = json.loads((work / f"{recipe.name}.done.json").read_text())
        cells = [
            f"{100 * shares[t]:.1f} ± {100 * standard_error(shares[t], SIZES[t]['test']):.1f}" for t in TASKS
        ]
        lines.append([recipe.name, *cells, f"{100 * sum(shares.values()) / len(shares):.1f}"])
    return _table(["model", *TASKS, "mean"], lines)


def _curve(records: list[dict[str, Any]]) -> str:
    lines = [
        [str(r["model"]), str(r["step"]), f"{r['loss']:.3f}", *(f"{100 * r[task]:.0f}" for task in TASKS)]
        for r in records
    ]
    return _table(["model", "step", "loss", *TASKS], lines)


def _coverage() -> str:
    """Return how many combinations there are on each side, and how many of the train side's are in train rows."""
    lines = []
    for task in TASKS:
        rng = Random(f"nano/coverage/{task}")
        every = {DRAFTERS[task](rng).combo for _ in range(DRAWN)}
        mine = {combo for combo in every if side(combo) == "train"}
        stream = [
            draft.combo for draft in islice(drafts(DRAFTERS[task], task, "train"), SIZES[task]["train"])
        ]
        shares = (f"{100 * len(set(stream[:count])) / len(mine):.0f} %" for count in COVERED)
        lines.append([task, str(len(every)), str(len(mine)), *shares])
    return _table(["task", "combinations", "of the train side", *(f"in {n:,} rows" for n in COVERED)], lines)


def _mixtures() -> str:
    sources = list(MIXTURES["teacher"])
    lines = [[kind, *(f"{share[source]:g}" for source in sources)] for kind, share in MIXTURES.items()]
    return _table(["text", *sources], lines)


def write_card(output: Path, work: Path) -> None:
    """Write `README.md` and copy the log beside the models."""
    logs = [(work / f"{recipe.name}.jsonl").read_text() for recipe in FAMILY]
    records = [json.loads(line) for log in logs for line in log.splitlines()]
    by_step = {(r["model"], r["step"]): r for r in records}  # a resumed run may have written a record twice
    records = list(by_step.values())
    last = {r["model"]: r for r in records}
    parts = [
        _HEAD.format(**VOCABULARIES, context=CONTEXT, pool=POOL),
        "## Scores\n\nTest split, per cent, with standard errors; chance is 25 for nano_knowledge.",
        _scores(work),
        "## Models\n",
        _shapes(output, last),
        f"## Combinations\n\nAs {DRAWN:,} drafts show them, and how many of the train side's the train rows cover.",
        _coverage(),
        "## Text\n\nWeights of the documents' kinds, by corpus.",
        _mixtures(),
        "## Curves\n\nMean loss (nats per token); validation scores of 100 rows, per cent. See `log.jsonl`.",
        _curve(records),
        "## Licence\n\nApache-2.0, like the package; all text is generated by the package itself.",
    ]
    (output / "README.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")
    (output / "log.jsonl").write_text("".join(logs))
