"""Write what docs/plan.md and docs/scale.md show of `pkt plan`: `python scripts/plan_pages.py [--check]`.

EXAMPLE, ROWS ── pkt plan, one after the other ──> printed table ──> a block of each page, between two marks
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planned import planned

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- made by `python scripts/plan_pages.py` -->", "<!-- end -->"
BIG = "device=cuda plan.memory_gb=80 plan.flops=3e14 plan.host_gb=512"
EXAMPLE = (
    "model=llama-13b-to-7b benchmark=gsm8k "
    "device=cuda plan.memory_gb=80 plan.host_gb=512 plan.flops=3e14 plan.disk_gb=1000"
)
SHOWN = 4  # stages of the example
LEFT_OUT = ("rows", "models:")  # a column, and a sentence of addresses


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table of what fits where.

    Attributes:
        machine: its name; empty: that of the row above.
        what: is run.
        words: of the request.
        more: further words, which the page says alone, beside "the same".
    """

    machine: str = ""
    what: str
    words: str
    more: str = ""


_LAPTOP = "device=cpu plan.memory_gb=16 plan.flops=2e11 plan.disk_gb=100"
_SMALL = "device=cuda plan.memory_gb=24 plan.flops=1e14 plan.host_gb=64"
_ADAPTERS = f"{BIG} model=llama-13b-to-7b benchmark=gsm8k optim.micro_batch_size=8 method.update.kind=lora"
ROWS = (
    Row(
        machine="laptop, 16 GB, 200 GFLOP/s",
        what="SmolLM2 360M to 135M, all layers train",
        words=f"{_LAPTOP} model=smollm2-360m-to-135m benchmark=pystdlib optim.micro_batch_size=16",
    ),
    Row(
        machine="one GPU of 24 GB",
        what="Qwen 3 4B to 0.6B, all layers",
        words=f"{_SMALL} model=qwen3-4b-to-0.6b benchmark=gsm8k optim.micro_batch_size=8",
    ),
    Row(
        what="Llama 2 7B to TinyLlama 1.1B, all layers",
        words=f"{_SMALL} model=llama-7b-to-1b benchmark=gsm8k optim.micro_batch_size=4",
    ),
    Row(
        machine="one GPU of 80 GB",
        what="Llama 2 13B to 7B, `semalign` as published, one layer",
        words=f"{BIG} model=llama-13b-to-7b benchmark=gsm8k experiment=paper_gsm8k",
    ),
    Row(what="the same pair, `semalign_joint`, adapters in all layers", words=_ADAPTERS),
    Row(
        what="the same, `method.cache_dtype=float8_e4m3`",
        words=_ADAPTERS,
        more="method.cache_dtype=float8_e4m3",
    ),
    Row(what="the same, `capture.mode=window`", words=_ADAPTERS, more="capture.mode=window"),
    Row(machine="8 GPUs of 80 GB", what="the same, adapters", words=_ADAPTERS, more="plan.processes=8"),
    Row(
        what="the same pair, all layers, which share out the student's (FSDP)",
        words=f"{BIG} model=llama-13b-to-7b benchmark=gsm8k optim.micro_batch_size=2 plan.processes=8 plan.shards=true",
    ),
)


def plan(words: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the columns, the rows and the sentences that `pkt plan` prints."""
    lines, _ = planned(words.split())
    head = next(line for line in lines if line.startswith("┃"))
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    told = [
        line.strip()
        for line in lines[1:]
        if (line[:1].isalpha() and ": " in line) or line.startswith("not known")
    ]
    return [cell.strip() for cell in head.strip("┃").split("┃")], cells, told


def example() -> Iterator[str]:
    """Yield the lines of the example in docs/plan.md."""
    columns, rows, told = plan(EXAMPLE)
    kept = [place for place, name in enumerate(columns) if name not in LEFT_OUT]
    table = [[row[place] for place in kept] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*table[: SHOWN + 1], strict=True)]
    yield from ("```", f"$ pkt plan {EXAMPLE}")
    for row in table[: SHOWN + 1]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield "..."
    for line in told:
        if not line.startswith(LEFT_OUT[1]):
            yield from textwrap.wrap(line, 130)
    yield "```"


def fits() -> Iterator[str]:
    """Yield the lines of the table in docs/scale.md."""
    yield "| machine | what | memory | disk | time | `pkt plan` |"
    yield "|---|---|---:|---:|---:|---|"
    for row in ROWS:
        columns, rows, _ = plan(f"{row.words} {row.more}")
        total = dict(zip(columns, rows[-1], strict=True))
        memory = f"{float(total['memory GB']):,.1f} GB" + (" each" if "processes" in row.more else "")
        words = f"the same, with `{row.more}`" if row.more else f"`{row.words}`"
        disk = f"{float(total['disk GB']):,.0f} GB"
        yield f"| {row.machine} | {row.what} | {memory} | {disk} | {total['time']} | {words} |"


def filled(page: Path, lines: Sequence[str]) -> str:
    """Return a page with its block replaced."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page} has no block between {BEGIN} and {END}")
    return "\n".join([before + BEGIN, *lines, mark + after])


def main(words: list[str]) -> int:
    """Write both pages, or with --check compare them."""
    pages = {DOCS / "plan.md": list(example()), DOCS / "scale.md": list(fits())}
    texts = {page: filled(page, lines) for page, lines in pages.items()}
    stale = [page for page, text in texts.items() if page.read_text(encoding="utf-8") != text]
    for page in stale:
        if "--check" in words:
            print(f"{page} is not what pkt plan says: run python scripts/plan_pages.py")
        else:
            page.write_text(texts[page], encoding="utf-8")
    return int("--check" in words and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
