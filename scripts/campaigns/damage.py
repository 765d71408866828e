"""Damage one file of pkt's state at a time: what is computed from it has to be right, or refused in words.

every kind of file: artifacts and their manifests, snapshots and sums of a stopped stage, remembered digests,
scores and metrics of run folders, the index of lm-eval's tasks, the record of an unfinished run
x flipped bit, cut in half, emptied, deleted, noise, JSON nested too deep, another file of its kind in its place
-> the same command -> the same results
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import torch

from campaigns import tiny_work
from campaigns.faulty_disk import ENDED, FaultyDisk
from campaigns.tiny_work import digest, empty, in_child
from campaigns.trials import Trial, Verdict
from pkt.durable import sealed, write_atomically
from pkt.errors import PktError
from pkt.reporting.runs import load_runs
from pkt.run_files import METRICS
from pkt.tasks import lm_eval_index
from pkt.tracking.jsonl import read_records
from pkt.tracking.unfinished import Unfinished

DAMAGES = 300
Read = Callable[[Path], object]
"""Reads what a file is there for, in a folder of outputs; the result is compared, or it raises `PktError`."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of state.

    Attributes:
        name: of the kind.
        pattern: of its files, from the folder of the outputs on.
        state: which prepared outputs have them: ``whole``, or stopped in ``extract`` or ``transfer``.
        read: what comes of them.
        loses: whether a damaged one may be left out of what is read (lines of metrics), as long as nothing is changed.
    """

    name: str
    pattern: str
    state: str
    read: Read
    loses: bool = False


def trials(count: int | None, seed: int) -> Iterator[Trial]:
    """Yield a trial for each damaged file, the kinds in turn.

    Args:
        count: of files; None: `DAMAGES`.
        seed: of what is drawn.
    """
    torch.set_num_threads(1)
    root, draw = Path(tempfile.mkdtemp(prefix="pkt-damage-")), Random(seed)
    tiny_work.pair(root)
    prepare(root)
    kinds = list(_kinds(root))
    golden = {kind.name: _golden(root, kind) for kind in kinds}
    ways = cycle(WAYS)
    for number, kind in zip(range(count or DAMAGES), cycle(kinds), strict=False):
        files = sorted((root / kind.state).glob(kind.pattern))
        assert files, f"no {kind.name}"
        file = draw.choice(files).relative_to(root / kind.state)
        way, own = next(ways), draw.randrange(2**32)
        yield Trial(
            name=f"{number}: {kind.name}: {file}: {way}",
            attempt=partial(attempt, root, kind, file, WAYS[way], own, golden[kind.name]),
        )


def _kinds(root: Path) -> Iterator[Kind]:
    store, command = partial(_results, root, "miniature"), partial(_results, root, "run")
    yield Kind(name="artifact", pattern="store/*/*/**/*.*", state="whole", read=store)
    yield Kind(name="manifest", pattern="store/*/*/manifest.json", state="whole", read=store)
    yield Kind(name="sums", pattern="store/extract/*.partial/*.*", state="extract", read=store)
    yield Kind(name="snapshot", pattern="store/transfer/*.partial/snapshot*/*", state="transfer", read=store)
    yield Kind(name="digest of rows", pattern="store/rows/*", state="whole", read=store)
    yield Kind(
        name="artifact of a command",
        pattern="store/*/*/**/*.*",
        state="run",
        read=command,
    )
    yield Kind(
        name="digest of rows of a command",
        pattern="store/rows/*",
        state="run",
        read=command,
    )
    yield Kind(name="scores of a run", pattern="runs/run/*/scores.json", state="run", read=_runs)
    yield Kind(
        name="metrics of a run", pattern=f"runs/run/*/{METRICS}", state="run", read=_metrics, loses=True
    )
    yield Kind(name="index of tasks", pattern="cache/pkt/*", state="whole", read=_index)
    yield Kind(
        name="unfinished run", pattern="runs/.unfinished/*.json", state="whole", read=_unfinished, loses=True
    )


def prepare(root: Path) -> None:
    """Leave outputs of each state: a whole miniature, one stopped in each stage, and a whole command."""
    work = partial(tiny_work.miniature, root / "outputs")
    for state in ("whole", "extract", "transfer", "run"):
        outputs = empty(root / "outputs")
        if state == "whole":
            _must(in_child(work, root / "said").code == 0, root)
            write_atomically(_made(_index_file(outputs)), sealed({"arc_easy": ["arc"], "gsm8k": ["gsm8k"]}))
            _begin(outputs)
        elif state == "run":
            _must(in_child(partial(tiny_work.command, "run", root), root / "said").code == 0, root)
        else:
            _stopped(root, work, state)
        shutil.copytree(outputs, empty(root / state), dirs_exist_ok=True)


def _must(held: bool, root: Path) -> None:
    assert held, (root / "said").read_text(encoding="utf-8")


def _stopped(root: Path, work: Callable[[], None], stage: str) -> None:
    """Kill the miniature in a stage, once it has state to go on from (two snapshots, where there may be two)."""
    wanted = {"extract": "sensitivity.json", "transfer": "snapshot.previous/state.json"}[stage]
    pattern = f"store/{stage}/*.partial/{wanted}"

    def run() -> None:
        _Until(root / "outputs", pattern).install()
        work()

    _must(in_child(run, root / "said").code == ENDED, root)


class _Until(FaultyDisk):
    """Ends the process at its first operation after a file has appeared."""

    def __init__(self, outputs: Path, pattern: str) -> None:
        super().__init__(outputs)
        self.pattern = pattern

    def step(self, *, writes: bool = True, half: Callable[[], object] = lambda: None) -> None:
        """End, or go on."""
        if any(Path(self.root).glob(self.pattern)):
            os._exit(ENDED)


def _results(root: Path, work: str, outputs: Path) -> object:
    """Give the work again and return the digest of its results."""
    own = (
        partial(tiny_work.miniature, outputs)
        if work == "miniature"
        else partial(tiny_work.command, work, root)
    )
    child = in_child(own, root / "said")
    if child.code == tiny_work.REFUSED and "unexpected" not in child.said:
        raise PktError(child.said)
    assert child.code == 0, child.said
    return digest(outputs)


def _runs(outputs: Path) -> object:
    return [{**run, "folder": ""} for run in load_runs([outputs / "runs"])]


def _metrics(outputs: Path) -> object:
    return [record for file in sorted(outputs.glob(f"runs/run/*/{METRICS}")) for record in read_records(file)]


def _index_file(outputs: Path) -> Path:
    os.environ["XDG_CACHE_HOME"] = str(outputs / "cache")
    return lm_eval_index.cache_file()


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _index(outputs: Path) -> object:
    """Return the kept index; where it is not believed, what would be made anew."""
    kept = lm_eval_index.read(_index_file(outputs))
    return kept if kept is not None else {"arc_easy": ["arc"], "gsm8k": ["gsm8k"]}


def _begin(outputs: Path) -> None:
    unfinished = Unfinished(outputs, {"method": "sft"}, outputs / "runs" / "killed")
    unfinished.begin()
    unfinished.end(well=False)


def _unfinished(outputs: Path) -> object:
    """Return which run is continued; none, where the record is not believed."""
    found = Unfinished(outputs, {"method": "sft"}, outputs / "runs" / "now")
    known = [] if found.earlier_dir is None else [found.run_id, str(found.earlier_dir)]
    found.end(well=False)
    return known


def _golden(root: Path, kind: Kind) -> object:
    return kind.read(_restored(root, kind.state))


def _restored(root: Path, state: str) -> Path:
    """Put prepared outputs in their place; times of files do not differ."""
    return shutil.copytree(root / state, empty(root / "outputs"), dirs_exist_ok=True)


def attempt(root: Path, kind: Kind, file: Path, way: Way, seed: int, golden: object) -> tuple[Verdict, str]:
    """Damage one file, and read what it is there for."""
    outputs = _restored(root, kind.state)
    others = [other for other in sorted(outputs.glob(kind.pattern)) if other != outputs / file]
    before = (outputs / file).read_bytes()
    way(outputs / file, others, Random(seed))
    try:
        found = kind.read(outputs)
    except PktError as error:
        return Verdict.REFUSED, str(error)
    if found == golden:
        return Verdict.WORKS, ""
    if kind.loses and isinstance(found, list) and _part(found, golden):
        return Verdict.WORKS, "what was damaged is left out"
    return Verdict.WRONG, f"{len(before)} bytes before; expected {str(golden)[:300]}, got {str(found)[:300]}"


def _part(found: list[Any], whole: Any) -> bool:
    """Whether a list is another one with some left out."""
    rest = iter(whole)
    return all(any(item == other for other in rest) for item in found)


Way = Callable[[Path, list[Path], Random], None]


def _flip(file: Path, others: list[Path], draw: Random) -> None:
    content = bytearray(file.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def _cut(file: Path, others: list[Path], draw: Random) -> None:
    os.truncate(file, draw.randrange(max(1, file.stat().st_size)))


def _empty(file: Path, others: list[Path], draw: Random) -> None:
    file.write_bytes(b"")


def _delete(file: Path, others: list[Path], draw: Random) -> None:
    file.unlink()


def _noise(file: Path, others: list[Path], draw: Random) -> None:
    file.write_bytes(draw.randbytes(max(1, file.stat().st_size)))


def _deep(file: Path, others: list[Path], draw: Random) -> None:
    file.write_bytes(b"[" * 100_000)


def _other(file: Path, others: list[Path], draw: Random) -> None:
    """Put another file of the kind in its place; where there is none, JSON of the right form with nothing in it."""
    if others:
        file.write_bytes(draw.choice(others).read_bytes())
    else:
        file.write_text(json.dumps({"checksum": "0" * 64}), encoding="utf-8")


WAYS: Mapping[str, Way] = {
    "flipped bit": _flip,
    "cut": _cut,
    "emptied": _empty,
    "flipped bit again": _flip,
    "deleted": _delete,
    "noise": _noise,
    "nested too deep": _deep,
    "another file": _other,
}
