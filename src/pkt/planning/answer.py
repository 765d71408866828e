"""`pkt plan <request>`: a table of its stages, what does not fit and what to set; `plan.json` in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from pkt import console
from pkt.durable import write_atomically
from pkt.planning.costs import costs
from pkt.planning.device import on_gpu
from pkt.planning.estimate import COLUMNS, Estimate, read, settled
from pkt.planning.facts import pair_of
from pkt.planning.fits import lacking
from pkt.planning.looked import look
from pkt.planning.machine import machine_of
from pkt.run_files import PLAN


def answer(cfg: DictConfig, run_dir: Path) -> None:
    """Print what a request will take, and write it down.

    Args:
        cfg: the composed request.
        run_dir: this run's folder.

    Raises:
        RequestError: the request is wrong, or has parts of which a plan does not know what they take.
    """
    config = settled(cfg)
    pair = pair_of(config.model, on_gpu(config.device))
    asked = read(cfg, pair)
    known = look(cfg, config, pair)
    made = Estimate(
        cfg=cfg,
        pair=pair,
        known=known,
        wanted=asked,
        machine=machine_of(config, pair.student),
        costs=costs(asked, known.rows),
    )
    title = f"{config.model.name}, {config.method['name']}, {config.benchmark.name}"
    console.table(title, COLUMNS, list(made.rows()))
    for sentence in made.told():
        console.say(sentence)
    problems = lacking(made)
    for sentence in problems:
        console.warn(sentence)
    run_dir.mkdir(parents=True, exist_ok=True)
    content = made.plain() | {"lacking": problems}
    write_atomically(run_dir / PLAN, json.dumps(content, indent=1) + "\n")
