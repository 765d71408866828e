"""How far memory rises while a teacher is captured and a student trains: `python growth.py ROWS FOLDER`.

Mapped files are not counted (RssAnon of /proc/self/status, read a hundred times a second): their pages are given back
when something else needs the room.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from random import Random

import torch

from pkt.config import OptimConfig
from pkt.data.batching import collate, epoch_batches
from pkt.data.encoding import Encoded
from pkt.data.tokens import Tokens
from pkt.models.architecture import Architecture
from pkt.models.taps import Interface
from pkt.objectives import MeanSquare, Objective, OutputHead
from pkt.training.capture import Shelf, capture
from pkt.training.forward import Targets, TransferLoss
from pkt.training.loop import Trainer
from pkt.training.passes import Read
from pkt.training.trainable import Update, make_trainable
from tiny import tiny_model

MEGABYTE = 10**6
WIDTH, DEPTH, TOKENS = 32, 3, 32


def anonymous() -> float:
    """Megabytes of this process that are no mapped file."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon"):
            return float(line.split()[1]) * 1024 / MEGABYTE
    raise RuntimeError("no RssAnon in /proc/self/status")


@contextmanager
def watched(found: dict[str, float], name: str):
    """Note how far memory rises."""
    before, peak, over = anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    found[name] = peak[0] - before


def main(rows: int, folder: Path) -> None:
    """Capture all layers at every position, train an epoch on them, and print what it took."""
    torch.set_num_threads(1)
    draw = Random(0)
    ids = Tokens([draw.randrange(3, 320) for _ in range(TOKENS)] for _ in range(rows))
    encoded = Encoded(input_ids=ids, prompt_lengths=[TOKENS // 2] * rows)
    teacher, student = (
        Architecture.of(tiny_model("llama", depth=DEPTH, width=WIDTH, seed=s)) for s in (1, 2)
    )
    found: dict[str, float] = {}
    with watched(found, "capture"):
        states = capture(
            teacher,
            encoded,
            {k: Read(layers=(k,), width=WIDTH) for k in range(1, DEPTH + 1)},
            interface=Interface.block,
            positions="all",
            batch_size=64,
            shelf=Shelf(folder=folder, limit=4 * MEGABYTE),
        )
    trainable = make_trainable(student, Update(kind="full"), [1, 2, 3])
    with watched(found, "training"):
        Trainer(
            loss=TransferLoss(
                arch=student,
                objective=Objective(terms={"layer": MeanSquare(positions="all")}),
                interface=Interface.block,
                targets=Targets.kept(states, positions="all"),
                prefix=None,
                head=OutputHead(arch=student),
            ),
            parameters=trainable.parameters,
            plan=[epoch_batches(encoded.lengths, 64, seed=0, epoch=0)],
            collate=lambda part: collate(encoded, part),
            optim=OptimConfig(lr=1e-3, epochs=1, batch_size=64),
        ).fit()
    found["kept"] = sum(own.bytes for own in states.values()) / MEGABYTE
    for name, megabytes in found.items():
        print(name, f"{megabytes:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
