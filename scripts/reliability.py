"""Run one campaign of trials: `python scripts/reliability.py <campaign> [--count N] [--seed N]`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from campaigns import trials
from pkt import console

CAMPAIGNS: dict[str, str] = {
    "architectures": "every causal decoder of transformers, declared, cut, trained, saved and scored again",
    "damage": "files of every kind of state are damaged, in seven ways",
    "faults": "every operation on the disk fails in turn, in four ways",
    "kills": "pkt run is killed at random moments",
    "losses": "every loss and fit at the edge of its range, in value and gradient, against float64",
    "programs": "hostile, right and wrong programs in the sandbox, by two users, with each layer missing in turn",
    "requests": "wrong requests: one message, the right exit code, nothing left behind",
    "rows": "150 files of rows: valid ones are read exactly, others refused by file and place",
    "tables": "studies drawn at random: what tables, shares and sentences say of them",
}


def main(words: Sequence[str]) -> int:
    """Run a campaign; the exit code is 1 if a trial ended as none may.

    Args:
        words: the command line after the script's name.
    """
    options = _parser().parse_args(words)
    campaign = importlib.import_module(f"campaigns.{options.campaign}")
    outcomes = trials.run(campaign.trials(count=options.count, seed=options.seed), _show)
    path = options.out / f"{options.campaign}.json"
    trials.write(outcomes, path)
    found = trials.counts(outcomes)
    console.say(
        f"{options.campaign}: {len(outcomes)} trials: " + ", ".join(f"{n} {v}" for v, n in found.items())
    )
    console.say(f"all outcomes: {path}")
    return int(bool(trials.bad(outcomes)))


def _show(outcome: trials.Outcome) -> None:
    if outcome.verdict in trials.BAD:
        console.say(f"{outcome.verdict}: {outcome.trial}\n  {outcome.detail}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reliability",
        description="Run one campaign of trials.",
        epilog="campaigns: " + "; ".join(f"{name}: {what}" for name, what in CAMPAIGNS.items()),
    )
    parser.add_argument("campaign", choices=list(CAMPAIGNS))
    parser.add_argument(
        "--count", type=int, help="at most so many trials (default: the campaign's own number)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("PKT_OUTPUT_DIR", "outputs")) / "reliability",
        help="folder for the outcomes (default: outputs/reliability)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
