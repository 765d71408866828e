"""Make one of the paper's tables or figures: `python scripts/reproduce.py table1 [--pair nano] [key=value ...]`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from paper.jobs import command, run_jobs
from paper.plans import Plan, with_words
from paper.results import check_place, result_of, tables_of, write_results
from paper.targets import CELLS, PAPER_PAIR, TARGETS, default_seeds
from pkt import console, places, secrets
from pkt.errors import PktError, RequestError, nearest
from pkt.searchpath import groups


def main(words: Sequence[str]) -> int:
    """Make one target and return the exit code.

    Args:
        words: the command line after the script's name.
    """
    options, rest = _parser().parse_known_args(words)
    try:
        plan = _plan(options, rest)
        if options.print:
            for job in plan.jobs:
                console.say(command(job, rest))
            return 0
        output_dir = places.output_dir(os.environ.get("PKT_OUTPUT_DIR", "outputs"))
        check_place(plan, options.out)
        folders = run_jobs(plan, output_dir, rest, at_once=options.jobs)
        report, data = result_of(plan, folders, _line(words))
        files = write_results(plan, report, data, options.out)
        for table in tables_of(report):
            console.table(table.title, table.columns, table.rows)
        console.say(report.lead)
        for file in files:
            console.say(f"{'wrote':<12}{file}")
    except PktError as error:
        console.fail(str(error))
        return error.exit_code
    except OSError as error:
        console.fail(f"cannot write: {error}; set PKT_OUTPUT_DIR or --out to a folder with room")
        return 1
    except KeyboardInterrupt:
        console.fail("stopped; the same command goes on from here")
        return 130
    return 0


def _line(words: Sequence[str]) -> str:
    """Return the command line for the record, without credentials."""
    return shlex.join(["python", "scripts/reproduce.py", *map(secrets.hide_word, words)])


def heed_termination() -> None:
    """Let SIGTERM do what Ctrl-C does: a killed target stops its jobs."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python scripts/reproduce.py",
        description="Run what one of the paper's tables or figures needs, and write it beside the published numbers.",
        epilog="Further words (key=value) go to every `pkt` request. The store remembers what was done: a command "
        "that was stopped goes on where it was. PKT_LAUNCHER=slurm sends every job to a cluster's queue.",
    )
    parser.add_argument("target", help=", ".join(TARGETS))
    parser.add_argument(
        "--pair", default="nano", help=f"model pair (default: nano; the paper's: {PAPER_PAIR})"
    )
    parser.add_argument(
        "--seeds", help="comma-separated (default: 0,1,2; where transfer pays on nano: 0,1,2,3,4)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default: 2)")
    parser.add_argument("--cells", default="few", choices=CELLS, help="of ablations (default: few)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results"), help="folder (default: docs/results)"
    )
    parser.add_argument("--print", action="store_true", help="print the requests and stop")
    return parser


def _plan(options: argparse.Namespace, words: Sequence[str]) -> Plan:
    """Return what the command line asks for.

    Raises:
        RequestError: no such target or pair, seeds that are no numbers, a word that is no override, or one that
            `with_words` refuses.
    """
    known = groups()["model"]
    for what, got, allowed in (("target", options.target, TARGETS), ("pair", options.pair, known)):
        if got not in allowed:
            raise RequestError(
                f"unknown {what} '{got}'; allowed: {', '.join(allowed)}{nearest(got, allowed)}"
            )
    if strange := [word for word in words if word.startswith("-") or "=" not in word]:
        raise RequestError(f"got '{strange[0]}'; further words are key=value, for every request")
    asked = default_seeds(options.target, options.pair) if options.seeds is None else options.seeds
    try:
        seeds = [int(seed) for seed in asked.split(",")]
    except ValueError:
        raise RequestError(f"--seeds: got '{asked}'; give whole numbers such as 0,1,2") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise RequestError(f"--seeds: got '{asked}'; give different numbers from 0")
    if options.jobs < 1:
        raise RequestError(f"--jobs: got {options.jobs}; give 1 or more")
    more = {"cells": options.cells} if options.target == "ablations" else {}
    return with_words(TARGETS[options.target](options.pair, seeds, **more), words)


if __name__ == "__main__":
    heed_termination()
    sys.exit(main(sys.argv[1:]))
