"""Print one table over runs: `python scripts/study_table.py outputs/runs/run/multirun/<stamp> [...]`."""

from __future__ import annotations

import sys
from pathlib import Path

from pkt.errors import PktError
from pkt.reporting.study import load_runs, study_tables


def main(folders: list[str]) -> int:
    """Print the table as Markdown."""
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for table in study_tables(load_runs(Path(folder) for folder in folders)):
            print(f"{table.title}\n\n{table.markdown()}\n")
    except PktError as error:
        print(f"study_table: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
