"""Train the nano family and write it as package data: `python scripts/train_nano.py [--output DIR]`.

Resumes after a kill: finished models are kept, an unfinished one goes on from its last checkpoint in
`DIR/.training`, which goes away when all is done. The same seeds on the same machine give the same bits. Where
others use the cores too, `OMP_WAIT_POLICY=PASSIVE` in the environment makes it several times faster.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from nano.card import write_card
from nano.family import FAMILY, Recipe
from nano.folder import load_model, load_tokenizer, save_model
from nano.rows import TASKS
from nano.scoring import score
from nano.training import new_model, train

ASSETS = Path(__file__).resolve().parents[1] / "src" / "pkt" / "assets" / "nano"
THREADS = 2


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
        with (work / "log.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    train(recipe, model, tokenizer, checkpoint=checkpoint, report=report)
    save_model(model, tokenizer, output / recipe.name)
    shipped = load_model(output / recipe.name)
    done.write_text(json.dumps(score(shipped, tokenizer, TASKS, "test")))
    print(f"{recipe.name}: {done.read_text()}", flush=True)


def main() -> None:
    """Train what is missing and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=ASSETS, help="folder for the three models and the card"
    )
    parser.add_argument("--only", nargs="*", help="train these models only, without a card")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    work = arguments.output / ".training"
    work.mkdir(parents=True, exist_ok=True)
    (work / ".gitignore").write_text("*\n")
    begun = time.monotonic()
    tokenizer = load_tokenizer(work / "tokenizer.json")
    for recipe in FAMILY:
        if not arguments.only or recipe.name in arguments.only:
            make(recipe, arguments.output, work, tokenizer)
    if not arguments.only:
        write_card(arguments.output, work)
        shutil.rmtree(work)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
