"""Read published sets of rows, from the hub, a folder or a file, as plain dictionaries.

    data_dir=null       datasets.load_dataset (the hub, or what it has already fetched)
    data_dir=<folder>   the set lies in the folder itself or in a subfolder named after it; in it, per split,
                        train.jsonl | train.parquet | [<config>/|data/]train-00000-of-00001.parquet | ...
    data_dir=<file>     that file alone: its name says the split (test.jsonl), or it holds the whole set (mbpp.jsonl)

Files are read without a cache, so nothing is left on the disk. If a supplied set lacks a split, the split is None; if
the set is not found at all, the error says where it was looked for and how to supply it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pkt.data.files import fault
from pkt.data.files import read as read_file
from pkt.data.sources import HUB_LOGGERS
from pkt.errors import PktError, RequestError, first_line
from pkt.foreign import network_errors
from pkt.loggers import errors_alone

Doc = dict[str, Any]
SUFFIXES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst")


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A published set.

    Attributes:
        title: its name in messages.
        hub: its id on the hub.
        name: a subfolder of `data_dir` that may hold it, as may those named by the hub's id and the id's last part.
        columns: columns that every row has, each a text, and which alone are kept; none: rows are kept as they are.
        lists: columns among them that are lists of texts.
        numbers: columns among them that are numbers, or texts that say one.
        more: columns that a row may have, each a text; where there are no `columns`, the only ones that are looked at.
        config: its configuration on the hub, and the folder of that name in the hub's layout.
        whole: name, without suffix, of a single file that holds all splits.
        part: returns the split of a row of that file; None if there is no such file.
        subsets: subfolders that may each hold one subject of the set.
        also: (split, another name of it).
    """

    title: str
    hub: str
    name: str
    columns: tuple[str, ...]
    lists: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    config: str | None = None
    whole: str | None = None
    part: Callable[[Doc], str] | None = None
    subsets: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()

    def names(self, split: str) -> tuple[str, ...]:
        """Return a split's name and its other names."""
        return (split, *(other for name, other in self.also if name == split))


def read(source: Upstream, split: str, data_dir: str | None) -> list[Doc] | None:
    """Return the rows of a split, or None where the set is there and has no such split.

    Args:
        source: the set.
        split: its upstream name.
        data_dir: folder or file; None is the hub.

    Raises:
        PktError: no set there.
        RequestError: a file that cannot be read, or rows that are not the set's.
    """
    docs = _from_hub(source).get(split) if data_dir is None else _from_disk(source, split, data_dir)
    return None if docs is None else [dict(doc) for doc in docs]


def required(source: Upstream, split: str, data_dir: str | None) -> list[Doc]:
    """Return the rows of a split that must exist.

    Raises:
        PktError: the split does not exist, or as for `read`.
    """
    docs = read(source, split, data_dir)
    if not docs:
        places = [data_dir] if data_dir else []
        raise missing(source, f"no {split} rows", places)
    return docs


def missing(source: Upstream, reason: str, places: Sequence[object] = ()) -> PktError:
    """Return the error for a set that cannot be read, which says how to supply it."""
    where = f" in {', '.join(map(str, places))}" if places else ""
    single = f", or one file {source.whole}.jsonl" if source.whole else ""
    layout = f"{source.config}/test-*.parquet" if source.config else "data/train-*.parquet"
    return PktError(
        f"{source.title} ({source.hub} on the hub): {reason}{where}. Ways to supply it: a connection to the hub with "
        f"benchmark.data_dir=null; or benchmark.data_dir=<folder> that has, itself or in a subfolder {source.name}/ "
        f"or {source.hub}/, a file per split (train.jsonl, test.jsonl; also .json, .jsonl.gz, .parquet) or the hub's "
        f"layout ({layout}){single}."
    )


@lru_cache(maxsize=8)
def _from_hub(source: Upstream) -> Mapping[str, Sequence[Doc]]:
    """Fetch all splits of a set once per process."""
    import datasets

    try:
        with errors_alone(*HUB_LOGGERS):
            found = datasets.load_dataset(source.hub, source.config)
    except network_errors(ValueError, RuntimeError) as error:
        raise missing(source, f"not to be had from the hub: {first_line(error)}") from error
    return {
        split: [_checked(source, doc, f"{source.hub}, row {n}") for n, doc in enumerate(rows, start=1)]
        for split, rows in found.items()
    }


def _from_disk(source: Upstream, split: str, data_dir: str) -> Sequence[Doc] | None:
    base = Path(data_dir).expanduser()
    if not base.exists():
        raise missing(source, "no such file or folder", [base.absolute()])
    if base.is_file():
        return _from_file(source, split, base)
    places = [base / source.hub, base / source.hub.rpartition("/")[2], base / source.name, base]
    for place in places:
        if docs := _from_folder(source, split, place):
            return docs
    return None


def _from_file(source: Upstream, split: str, path: Path) -> Sequence[Doc] | None:
    """Read one file: a split, by its name, or the whole set."""
    if _stem(path) in source.names(split):
        return _read(source, path)
    if source.part is None or _stem(path) in ("train", "test", "validation", "dev"):
        return None
    return [doc for doc in _read(source, path) if source.part(doc) == split] or None


def _from_folder(source: Upstream, split: str, folder: Path) -> list[Doc] | None:
    """Read a split from a folder: from the set's configuration, the folder itself, its subjects or its single file."""
    inner = [folder / source.config] if source.config else []
    for name in source.names(split):
        for place in [*inner, folder, folder / "data", folder / split]:
            if files := _files(place, name):
                return [doc for file in files for doc in _read(source, file)]
    if source.subsets and (docs := _from_subjects(source, split, folder)):
        return docs
    for file in _files(folder, source.whole) if source.whole else ():
        return list(_from_file(source, split, file) or ()) or None
    return None


def _from_subjects(source: Upstream, split: str, folder: Path) -> list[Doc]:
    """Read a folder of folders, one per subject; a row without subject gets the folder's name."""
    docs: list[Doc] = []
    for subject in source.subsets:
        for file in _files(folder / subject, split):
            docs += [{**doc, "subject": doc.get("subject") or subject} for doc in _read(source, file)]
    return docs


def _files(folder: Path, name: str) -> list[Path]:
    """Return the files of a name, shards (``name-00000-of-00002``) in order."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_file() and _suffix(path)]
    exact = [path for path in found if _stem(path).lower() == name.lower()]
    return sorted(exact)[:1] or sorted(path for path in found if _stem(path).startswith(f"{name}-"))


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)


def _stem(path: Path) -> str:
    return path.name.removesuffix(_suffix(path) or path.suffix)


def _read(source: Upstream, path: Path) -> Sequence[Doc]:
    stat = path.stat()
    return _parsed(source, path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=128)  # MMLU may be 57 folders; each split asks again
def _parsed(source: Upstream, path: Path, _changed: int, _size: int) -> Sequence[Doc]:
    """Read a file once per process and state of the file."""
    wanted = (*source.columns, *source.more)
    docs = [_checked(source, doc, f"{path}, {place}") for place, doc in read_file(path, wanted)]
    if not docs and path.suffix != ".parquet":  # a shard of parquet may hold none
        raise RequestError(f"{path}: the file has no rows. Fetch it anew, or name another one.")
    return docs


def _checked(source: Upstream, doc: Any, where: str) -> Doc:
    """Return the set's columns of a row; an older conversion wrapped rows as {"train": row}.

    Raises:
        RequestError: it is no row of the set.
    """
    if isinstance(doc, dict) and set(doc) == {"train"} and isinstance(doc["train"], dict):
        doc = doc["train"]
    lacking = [key for key in source.columns if not isinstance(doc, dict) or doc.get(key) is None]
    if lacking or not isinstance(doc, dict):
        raise RequestError(
            f"{where}: no {', '.join(lacking) or 'object'}; a row of {source.title} has "
            f"{', '.join(source.columns) or 'columns'}. Point benchmark.data_dir at that set's files."
        )
    if not source.columns:
        return doc
    kept = {key: doc[key] for key in (*source.columns, *source.more) if doc.get(key) is not None}
    for key, value in kept.items():
        if wrong := _fault(source, key, value):
            raise RequestError(
                f"{where}: '{key}' {wrong}. Point benchmark.data_dir at {source.title}'s files."
            )
    return kept


def _fault(source: Upstream, key: str, value: Any) -> str | None:
    if key in source.lists:
        if not isinstance(value, list):
            return f"is {type(value).__name__}, not a list of strings"
        return next((f"holds an item that {wrong}" for item in value if (wrong := fault(item))), None)
    if key in source.numbers and isinstance(value, int):
        return None
    return fault(value)
