"""Print one table over runs: `python scripts/study_table.py outputs/runs/run/multirun/<stamp> [...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pkt.errors import PktError
from pkt.reporting.runs import load_runs
from pkt.reporting.study import study_tables


def main(words: Sequence[str]) -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="holds runs, at any depth")
    parser.add_argument(
        "--against", metavar="METHOD", help="compare with this arm (default: sft, else the first)"
    )
    parser.add_argument("--pairs", action="store_true", help="add a table of every arm against every other")
    options = parser.parse_args(words)
    try:
        runs = load_runs(options.folders)
        for table in study_tables(runs, against=options.against, pairs=options.pairs):
            print(f"{table.title}\n\n{table.markdown()}\n")
    except PktError as error:
        print(f"study_table: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
