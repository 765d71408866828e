"""Train the nano family and write it as package data: `python scripts/train_nano.py [--output DIR]`.

    teacher --> code_teacher |
    tokens_teacher           |
    peer                     |  chains of models, two at once, a process with one thread each
    student                  |

Resumes after a kill: finished models are kept, an unfinished one goes on from its last checkpoint in
`DIR/.training`, which goes away when all is done. The same seeds on the same machine give the same bits, whatever
else runs on it.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from nano.card import write_card
from nano.family import FAMILY, Recipe
from nano.folder import load_model, load_tokenizer, save_model
from nano.rows import TASKS
from nano.scoring import score
from nano.tokenizer import SIZES
from nano.training import new_model, train

ASSETS = Path(__file__).resolve().parents[1] / "src" / "pkt" / "assets" / "nano"
AT_ONCE = 2


def make(recipe: Recipe, output: Path, work: Path, tokenizer: Any) -> None:
    """Train one model, save it and note its scores; do nothing when that is done already."""
    done, checkpoint = work / f"{recipe.name}.done.json", work / f"{recipe.name}.pt"
    if done.exists():
        print(f"{recipe.name}: done already", flush=True)
        return
    model = new_model(recipe)
    if recipe.start and not checkpoint.exists():
        model.load_state_dict(torch.load(work / f"{recipe.start}.pt", weights_only=True)["model"])

    def report(record: dict[str, Any]) -> None:
        shares = score(model, tokenizer, TASKS, "validation", count=100)
        line = json.dumps({key: round(value, 4) if isinstance(value, float) else value
                           for key, value in {**record, **shares}.items()})  # fmt: skip
        with (work / f"{recipe.name}.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    train(recipe, model, tokenizer, checkpoint=checkpoint, report=report)
    save_model(model, tokenizer, output / recipe.name)
    shipped = load_model(output / recipe.name)
    done.write_text(json.dumps(score(shipped, tokenizer, TASKS, "test")))
    print(f"{recipe.name}: {done.read_text()}", flush=True)


def chains() -> Iterator[tuple[str, ...]]:
    """Yield the names of models that start from one another, in order."""
    for recipe in FAMILY:
        if recipe.start is None:
            yield (recipe.name, *(other.name for other in FAMILY if other.start == recipe.name))


def make_chain(names: Sequence[str], output: Path) -> None:
    """Make models one after the other in a process of their own.

    Raises:
        CalledProcessError: it failed; what it had done is kept.
    """
    subprocess.run([sys.executable, __file__, "--output", str(output), "--only", *names], check=True)


def main() -> None:
    """Train what is missing and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder for the models and the card")
    parser.add_argument("--only", nargs="*", help="train these models only, in this process, without a card")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    work = arguments.output / ".training"
    work.mkdir(parents=True, exist_ok=True)
    (work / ".gitignore").write_text("*\n")
    begun = time.monotonic()
    tokenizers = {kind: load_tokenizer(work, kind) for kind in SIZES}
    if arguments.only:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        for recipe in FAMILY:
            if recipe.name in arguments.only:
                make(recipe, arguments.output, work, tokenizers[recipe.tokenizer])
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda names: make_chain(names, arguments.output), chains()))
    write_card(arguments.output, work)
    shutil.rmtree(work)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
