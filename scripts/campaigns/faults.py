"""Let every operation on the disk fail in turn: the same command has to end in the same result afterwards.

The n-th open, write, fsync, replace or mkdir under the outputs fails, n = 1, 2, ... until a run gets through, in each
of the four ways of `faulty_disk`. Then the same work runs on a good disk: its results are compared with those of a run
that met no fault. First a miniature that has every kind of state, then (each `STRIDE`-th operation) `pkt transfer`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch

from campaigns import tiny_work
from campaigns.faulty_disk import ENDED, FAULTS, FaultyDisk
from campaigns.tiny_work import UNFORESEEN, digest, empty, in_child
from campaigns.trials import Trial, Verdict
from pkt.inventory import damages

STRIDE = 9  # one operation of so many of a whole command is tried


def trials(count: int | None, seed: int) -> Iterable[Trial]:
    """Yield a trial for each operation and fault.

    Args:
        count: at most so many, spread over all operations.
        seed: not used; nothing is drawn.
    """
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    root = Path(tempfile.mkdtemp(prefix="pkt-faults-"))
    tiny_work.pair(root)
    own = partial(tiny_work.miniature, root / "outputs")
    whole = list(_trials(Bed(root=root, work=own, name="miniature"), stride=1))
    if count is not None:
        return islice(iter(whole[:: max(1, len(whole) // count)]), count)
    command = partial(tiny_work.command, "transfer", root)
    return [*whole, *_trials(Bed(root=root, work=command, name="pkt transfer"), stride=STRIDE)]


def _trials(bed: Bed, *, stride: int) -> Iterator[Trial]:
    golden, operations = bed.golden()
    faults = cycle(FAULTS)
    for at in range(1, operations + 2, stride):
        for fault in FAULTS if stride == 1 else (next(faults),):
            yield Trial(
                name=f"{bed.name}: {fault} at operation {at}", attempt=partial(bed.attempt, at, fault, golden)
            )


@dataclass(frozen=True, kw_only=True)
class Bed:
    """Where one kind of work is tried.

    Attributes:
        root: folder of the pair; outputs are made beside it.
        work: leaves results in the store of the outputs.
        name: of the work.
    """

    root: Path
    work: Callable[[], None]
    name: str

    @property
    def outputs(self) -> Path:
        """The outputs of the work."""
        return self.root / "outputs"

    def golden(self) -> tuple[str, int]:
        """Return the digest of what the work leaves on a good disk, and how many operations it takes."""
        empty(self.outputs)
        told = self.root / "count"
        child = in_child(
            lambda: told.write_text(str(self._on(0, "error")), encoding="ascii"), self.root / "said"
        )
        assert child.code == 0, child.said
        return digest(self.outputs), int(told.read_text(encoding="ascii"))

    def _on(self, at: int, fault: str) -> int:
        disk = FaultyDisk(self.outputs, at, fault)
        disk.install()
        self.work()
        return disk.count

    def attempt(self, at: int, fault: str, golden: str) -> tuple[Verdict, str]:
        """Let an operation fail, then do the same work on a good disk."""
        empty(self.outputs)
        first = in_child(lambda: self._on(at, fault), self.root / "said")
        if first.code == UNFORESEEN or "Traceback" in first.said or "unexpected" in first.said:
            return Verdict.TRACEBACK, first.said
        if first.code == 0 and digest(self.outputs) != golden:
            return Verdict.WRONG, f"it went on after the fault to another result: {first.said}"
        again = in_child(self.work, self.root / "said")
        if again.code:
            return Verdict.LOST, f"the same work fails afterwards: {again.said}"
        if digest(self.outputs) != golden:
            return Verdict.WRONG, f"another result afterwards: {again.said}"
        if found := list(damages(self.outputs / "store", [self.outputs / "runs"])):
            return Verdict.WRONG, f"left damaged: {found}"
        return (Verdict.REFUSED if first.code not in (0, ENDED) else Verdict.WORKS), first.said[-200:]
