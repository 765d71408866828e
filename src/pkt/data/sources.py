"""Read the rows that a setting names: of a file, of a folder that datasets has saved, or of the hub.

train.jsonl | .json | .csv | .tsv | .parquet, packed or not ──> pkt.data.files
a folder of save_to_disk                                     ──> datasets.load_from_disk
hub:org/name[:config[:split]]                                ──> datasets.load_dataset
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from pkt.data.files import read
from pkt.errors import RequestError, first_line
from pkt.foreign import network_errors
from pkt.loggers import errors_alone

HUB = "hub:"
HUB_LOGGERS = ("huggingface_hub", "datasets")  # they say a line per retry
FORMS = (
    "a file (.jsonl, .json, .csv, .tsv, .parquet; gzip or zstd around text), a folder of datasets' save_to_disk, or "
    "hub:org/name:config:split"
)


def rows_of(
    path: str | Path, *, setting: str, split: str, columns: Collection[str]
) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of what a setting names.

    Args:
        path: its value, in one of `FORMS`.
        setting: its name.
        split: which split of a set that has several, unless the value says it.
        columns: those that will be looked at.

    Raises:
        RequestError: there is nothing, or it cannot be read.
    """
    if str(path).startswith(HUB):
        return _saved(_from_hub(str(path), setting, split), columns)
    place = Path(path).expanduser()
    if place.is_dir():
        return _saved(_from_folder(place, setting, split), columns)
    if not place.is_file():
        raise RequestError(f"{setting}={path}: no file at {place.absolute()}; it takes {FORMS}.")
    return read(place, columns)


def holds_rows(place: Path) -> bool:
    """Return whether something is a file, or a folder that datasets has saved, by the names of what lies in it."""
    return place.is_file() or any((place / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _saved(rows: Any, columns: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a set of datasets, of which only some columns are read."""
    wanted = [name for name in rows.column_names if name in columns]
    chosen = rows.select_columns(wanted) if wanted else rows
    yield from ((f"row {number}", dict(row)) for number, row in enumerate(chosen, start=1))


def _from_folder(folder: Path, setting: str, split: str) -> Any:
    import datasets

    try:
        with errors_alone(*HUB_LOGGERS):
            found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{setting}={folder}: a folder, and none of datasets' save_to_disk ({first_line(error)}); it takes {FORMS}."
        ) from error
    return _part(found, str(folder), setting, split) if isinstance(found, dict) else found


def _from_hub(text: str, setting: str, split: str) -> Any:
    import datasets

    name, config, part = _address(text, setting)
    try:
        with errors_alone(*HUB_LOGGERS):
            found = datasets.load_dataset(name, config or None)
    except network_errors(ValueError, RuntimeError) as error:
        raise RequestError(
            f"{setting}={text}: not to be had from the hub: {first_line(error)}. Look at the name, log in (hf auth "
            "login) where it is gated, or name a file."
        ) from error
    return _part(found, text, setting, part or split)


def hub_name(named: str) -> str | None:
    """Return the id on the hub of rows that are named by one; None of a file or folder."""
    return _address(named, "data")[0] if named.startswith(HUB) else None


def _address(text: str, setting: str) -> Sequence[str]:
    parts = text.removeprefix(HUB).split(":")
    if len(parts) > 3 or not parts[0]:
        raise RequestError(
            f"{setting}={text}: write hub:org/name, hub:org/name:config or hub:org/name:config:split."
        )
    return [*parts, "", ""][:3]


def _part(found: Any, named: str, setting: str, split: str) -> Any:
    if split not in found:
        raise RequestError(
            f"{setting}={named}: no split '{split}'; it has {', '.join(map(str, found))}"
            f"{' (name one: hub:org/name:config:split)' if named.startswith(HUB) else ''}."
        )
    return found[split]
