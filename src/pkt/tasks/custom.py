"""custom: rows from the user's own files; a split without a file is cut from the train file, without overlap."""

from __future__ import annotations

from dataclasses import dataclass

from pkt.data.pools import FRONT, SHARE, divided
from pkt.data.rows import from_file
from pkt.errors import RequestError
from pkt.tasks.base import Given, Row, RowTask
from pkt.tasks.grading import Exact, Likelihood


@dataclass(frozen=True, kw_only=True)
class Custom(RowTask):
    """The user's rows, graded by the answer that a model writes and by the likelihood of the right one."""

    version = 1
    gradings = (Exact(until=(), new_tokens=128), Likelihood())

    def rows(self, split: str, given: Given) -> list[Row]:
        """See `Task`; what is cut from the train file depends on ids and `data.shuffle_seed`, not on the rows' order.

        Raises:
            RequestError: no train (or test) file, or a train file that is too small to cut.
        """
        data = given.data
        named = getattr(data, split)
        if split == "test" and named is None:
            files = (
                "data.test=<file> like that of data.train"
                if data.train
                else "data.train=<file> data.test=<file>"
            )
            raise RequestError(
                f"task {self.name} has no test rows: give {files}, or score other tasks (benchmark.tasks=[...])."
            )
        if split in (*FRONT, "test") and named is not None:
            rows = _read(named, split, given)
        elif data.train is None:
            raise RequestError(f"task {self.name} needs rows: set data.train=/path/to/train.jsonl.")
        else:
            rows = _cut(given)[split]
        self._count(rows, split, given)
        return rows

    def _count(self, rows: list[Row], split: str, given: Given) -> None:
        """Keep how many rows `data.sizes` leaves unused, for a note; what lies behind labelled rows may be prompts."""
        most = getattr(given.data.sizes, split, len(rows))
        counts = given.data.sizes.labelled is None and given.data.unlabelled is None
        if given.fitting is not None and counts and len(rows) > most:
            given.fitting.beyond[f"{self.name}/{split}"] = (len(rows) - most, len(rows))


def _read(path: str, split: str, given: Given) -> list[Row]:
    data = given.data
    rows = from_file(path, split=split, columns=data.columns, supervise=data.supervise, chat=given.chat)
    if data.too_long == "refuse" or split == "test" or given.fitting is None:
        return rows
    return given.fitting.kept(f"data.{split}={path}", rows)


def _cut(given: Given) -> dict[str, list[Row]]:
    """Divide the train file between train and the splits that have no file."""
    data = given.data
    assert data.train is not None
    rows = _read(data.train, "train", given)
    wanted = [split for split in FRONT if getattr(data, split) is None]
    if wanted and len(rows) < SHARE:
        raise RequestError(
            f"data.train={data.train} has {len(rows)} rows; {', '.join(wanted)} are cut from it, which takes "
            f"{SHARE} or more. Add rows, or name files: data.{wanted[0]}=..."
        )
    parts = divided(rows, wanted, data.sizes, trains=True, seed=data.shuffle_seed or 0)
    kept = {row["id"] for row in parts["train"]}
    return parts | {"train": [row for row in rows if row["id"] in kept]}
