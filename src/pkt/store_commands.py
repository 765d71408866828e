"""`pkt store list | verify | prune`: what is in the store, whether it is whole, and what can go.

    words -> the folder of the store -> `inventory` -> a table, or what was removed

A plain command: nothing is composed, and neither torch nor Hydra is imported.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pkt import console
from pkt.errors import RequestError
from pkt.inventory import Leftover, Stored, artifacts, damages, leftovers, needs, remove
from pkt.store import store_root

_RUNS = ("runs", "paper")  # below output_dir: folders of requests, and of the jobs of the paper's targets
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "": 86400.0}
_HELP = """\
list     artifacts: stage, key, size, days since last used, who made it, who needs it
verify   compare everything with its checksums; exit code 1 if something is damaged
prune    remove leftovers, and after asking the artifacts that nothing needs: no run folder names them, no checkpoint
         was made from them. Checkpoints stay, unless their key is given. pkt removes what is recognisably its own,
         follows no links, and leaves what a running process holds"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"pkt store: {message}; `pkt store --help` shows what there is")


def main(words: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Args:
        words: the command line after ``pkt store``.
    """
    try:
        asked = _parser().parse_intermixed_args(words)
        root, runs = _folders(asked.where)
        return int({"list": _list, "verify": _verify, "prune": _prune}[asked.command](asked, root, runs))
    except OSError as error:
        console.fail(f"the store cannot be read or changed: {error}")
        return 1
    except SystemExit as stop:  # --help
        return int(stop.code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pkt store", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("list", "verify", "prune"))
    parser.add_argument(
        "where",
        nargs="*",
        metavar="WORD",
        help="output_dir=FOLDER, store_dir=FOLDER, runs=FOLDER (more run folders); prune: keys of artifacts to remove",
    )
    parser.add_argument("--older-than", default="7d", metavar="AGE", help="prune: 7d (default), 12h, 30m, 0")
    parser.add_argument("--dry-run", action="store_true", help="prune: only say what would go")
    parser.add_argument("--yes", action="store_true", help="prune: artifacts too, without asking")
    return parser


def _folders(words: Sequence[str]) -> tuple[Path, list[Path]]:
    """Return the store's folder and those of runs, from the words or the environment."""
    given: dict[str, list[str]] = {}
    for name, _, value in (word.partition("=") for word in words if "=" in word):
        if name not in ("output_dir", "store_dir", "runs") or not value:
            raise RequestError(
                f"pkt store: got '{name}={value}'; allowed: output_dir=, store_dir=, runs=, each with a folder"
            )
        given.setdefault(name, []).append(value)
    output = given.get("output_dir", [os.environ.get("PKT_OUTPUT_DIR") or "outputs"])[-1]
    root = store_root(output, given.get("store_dir", [os.environ.get("PKT_STORE_DIR")])[-1])
    if not root.is_dir():
        raise RequestError(f"no store at {root.absolute()}; name it: output_dir=FOLDER or store_dir=FOLDER")
    runs = [*(Path(output) / name for name in _RUNS), *map(Path, given.get("runs", []))]
    return root, [folder for folder in runs if folder.is_dir()]


def _list(asked: argparse.Namespace, root: Path, runs: list[Path]) -> int:
    stored, left = artifacts(root), leftovers(root)
    needed = needs(stored, runs)
    rows = [
        (
            one.stage,
            one.key,
            _bytes(one.size),
            f"{one.age / 86400:.1f}",
            one.made,
            _needed(needed, one) if one.state == "whole" else one.state,
        )
        for one in stored
    ]
    console.table(str(root), ("stage", "key", "size", "days unused", "made by", "needed by"), rows)
    told = f"{len(stored)} artifacts, {_bytes(sum(one.size for one in stored))}"
    locks, size = sum(one.kind == "lock" for one in left), sum(one.size for one in left)  # a stage leaves one
    rest = f"{len(left)} leftovers, {locks} of them locks, {_bytes(size)} (`pkt store prune --dry-run` lists them)"
    console.say(f"{told}; {rest}")
    return 0


def _needed(needed: Mapping[str, Sequence[str]], one: Stored) -> str:
    who = needed.get(one.key, [])
    return ", ".join(who[:2]) + (f" and {len(who) - 2} more" if len(who) > 2 else "")


def _verify(asked: argparse.Namespace, root: Path, runs: list[Path]) -> int:
    found = list(damages(root, runs))
    for path, why in found:
        console.say(f"damaged: {path}: {why}")
    others = sum(one.state == "another format" for one in artifacts(root))
    told = (
        f"; {others} artifacts of another version of pkt, which are computed anew when needed"
        if others
        else ""
    )
    console.say(f"{len(found)} damaged in {root}{told}")
    return int(bool(found))


def _prune(asked: argparse.Namespace, root: Path, runs: list[Path]) -> int:
    limit, stored = _seconds(asked.older_than), artifacts(root)
    named = {word for word in asked.where if "=" not in word}
    if unknown := sorted(named - {one.key for one in stored}):
        raise RequestError(
            f"pkt store prune: no artifact {', '.join(unknown)} in {root}; `pkt store list` shows them"
        )
    needed = needs(stored, runs)
    left = [] if named else [one for one in leftovers(root) if one.age >= limit]
    free = [
        one
        for one in stored
        if one.key in named or (not named and one.key not in needed and one.age >= limit)
    ]
    listed: list[Stored | Leftover] = [*left, *free]
    for one in listed:
        _tell(one, needed)
    would = "would be freed" if asked.dry_run else "can be freed"
    console.say(
        f"{len(left)} leftovers and {len(free)} artifacts; {_bytes(_total(left) + _total(free))} {would}"
    )
    if asked.dry_run:
        return 0
    chosen = listed if free and _agreed(asked.yes, free) else left
    gone = [one for one in chosen if remove(one)]
    for one in chosen:
        if one not in gone:
            console.say(f"in use: {one.path}")
    console.say(f"freed {_bytes(_total(gone))}")
    return 0


def _tell(one: Stored | Leftover, needed: Mapping[str, Sequence[str]]) -> None:
    kind = one.kind if isinstance(one, Leftover) else f"{one.stage} {one.made}"
    who = f", needed by {_needed(needed, one)}" if isinstance(one, Stored) and one.key in needed else ""
    console.say(f"{one.path}: {kind}, {_bytes(one.size)}, {one.age / 86400:.1f} days{who}")


def _agreed(yes: bool, free: Sequence[Stored]) -> bool:
    """Ask whether artifacts may go; nobody there to answer means no."""
    if yes:
        return True
    if not sys.stdin.isatty():
        console.say(f"{len(free)} artifacts stay: --yes removes them")
        return False
    console.note(f"remove {len(free)} artifacts, {_bytes(_total(free))}? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _total(of: Sequence[Stored | Leftover]) -> int:
    return sum(one.size for one in of)


def _seconds(age: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd]?)", age)
    if not found:
        raise RequestError(
            f"pkt store: --older-than={age}; a number of days (7d), hours (12h) or minutes (30m)"
        )
    return float(found[1]) * _UNITS[found[2]]


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
