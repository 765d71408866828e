"""Everything that pkt prints. Results go to stdout; messages and progress go to stderr.

rich is imported where a table is drawn, so that `pkt --help` stays fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from io import TextIOWrapper
from typing import TextIO

from pkt import __version__, secrets
from pkt.errors import PktError
from pkt.searchpath import groups

_USAGE = """\
pkt: parametric knowledge transfer between language models of different sizes

usage: pkt <verb> [key=value ...] [flags]

verbs
{verbs}

config groups (group=option; see one with `pkt run --cfg job -p <group>`; `pkt run -h` lists those of plugins too)
{groups}

flags
  -m, --multirun        one job for every combination: `pkt run -m method=a,b seed=0,1`
  --cfg job             print the composed config and stop (-p model: one part; --resolve)
  --info defaults       which files the config was composed from (also: searchpath, plugins, config)
  -cn NAME, -cd FOLDER  another primary config; one more config folder
  -h                    after a verb: that verb's help with its full config
  --version             pkt's version

examples
  pkt run                                      the built-in nano pair, all stages, no network
  pkt transfer method=semalign optim.lr=1e-4   one stage; what it needs is computed or reused first
  pkt run -m mapping=critical,depth seed=0,1   a sweep; the teacher's stages run once

environment
  PKT_OUTPUT_DIR   where store/ and runs/ live (default: outputs)
  PKT_STORE_DIR    the store alone, which may be read-only where all that is asked for is there
  PKT_RUN_DIR      the folder of this run (default: a new one under runs/)
  PKT_CONFIG_DIR   own config folders, the first one wins; ./conf adds options without it
  PKT_LAUNCHER     Hydra launcher of -m (default: basic)
  PKT_DEBUG=1      full tracebacks
  WANDB_MODE       offline (default), online, disabled
  completion       eval "$(pkt -sc install=bash)"

exit codes: 0 done, 1 the task failed, 2 the request was wrong, 130 stopped (the same command resumes),
            141 the reader of a config closed the pipe
"""


_quiet: list[str] = []  # what this process is called, where another one does the talking


def only_errors(name: str) -> None:
    """Print from now on nothing but why this process stops, after its name."""
    _quiet[:] = [name]


def say(message: str) -> None:
    """Print a result; a reader that has seen enough (`| head`) does not stop the work."""
    if not _quiet:
        _print(message, sys.stdout)


def note(message: str) -> None:
    """Print a message that is not a result."""
    if not _quiet:
        _print(secrets.without(message), sys.stderr)


def _print(message: str, stream: TextIO) -> None:
    try:
        print(message, file=stream, flush=True)
    except BrokenPipeError:
        silence(stream)
    except OSError as error:  # a full disk behind `> file`
        silence(stream)
        name = "standard output" if stream is sys.stdout else "standard error"
        raise PktError(f"cannot write to {name}: {error.strerror}; send it somewhere else") from error


def silence(stream: TextIO) -> None:
    """Let what is printed from now on go nowhere: nobody reads it, and Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def accept_any_text() -> None:
    """Print a sign that the terminal's encoding lacks as `?`, rather than fail at the end of a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def warn(message: str) -> None:
    """Print a warning."""
    note(f"pkt: warning: {message}")


def fail(message: str) -> None:
    """Print why pkt stops."""
    _print(secrets.without(": ".join(["pkt", *_quiet, message])), sys.stderr)


def debugging() -> bool:
    """Return whether the user asked for tracebacks."""
    asked = os.environ.get("PKT_DEBUG") or os.environ.get("HYDRA_FULL_ERROR")  # while Hydra runs: the first
    return (asked or "0") != "0"


def version() -> None:
    """Print pkt's version."""
    say(f"pkt {__version__}")


def usage(verbs: Mapping[str, str]) -> None:
    """Print the help of the command.

    Args:
        verbs: each verb and what it does.
    """
    shown = "\n".join(f"  {verb:<10}{text}" for verb, text in verbs.items())
    listed = "\n".join(f"  {group:<12}{', '.join(options)}" for group, options in groups().items())
    say(_USAGE.format(verbs=shown, groups=listed).rstrip())


def stage(name: str, state: str, seconds: float, peak_mb: float, key: str) -> None:
    """Print the one line of a finished stage.

    Args:
        name: the stage.
        state: `computed` or `reused`.
        seconds: wall clock of this call.
        peak_mb: highest memory while it ran (the GPU's where there is one).
        key: the artifact's key in the store.
    """
    say(f"{name:<20}{state:<10}{seconds:8.1f} s {peak_mb:8.0f} MB  {key}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table.

    Args:
        title: what the table shows.
        columns: the heading of each column.
        rows: one sequence per row; numbers are aligned right.
    """
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        drawn.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    literal = partial(Console, markup=False, emoji=False)  # brackets and colons in a cell are the cell's own
    # in a file or a pipe nobody wraps lines: a cut table would lose numbers
    console = literal() if Console().is_terminal else literal(width=500)
    with console.capture() as text:
        console.print(drawn)
    say(text.get().rstrip("\n"))


def has_colours() -> bool:
    """Return whether stdout is a terminal that shows colours (NO_COLOR is heeded)."""
    from rich.console import Console

    return Console().color_system is not None and Console().is_terminal


def on_terminal() -> bool:
    """Return whether stderr is a terminal that this process may draw on."""
    from rich.console import Console

    return not _quiet and Console(stderr=True).is_terminal
