"""Rows of a file of the user's: objects in which some columns have to be texts, and whose ids differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt.data.files import fault, read
from pkt.errors import RequestError, nearest

FILLED = ("prompt", "answer")  # columns that may not be empty


def records(
    path: str | Path, *, setting: str, needed: Sequence[str], more: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Read the rows of a file, with an id each; other columns are not looked at.

    Args:
        path: the file, in one of the forms that `pkt.data.files` reads.
        setting: what names it in the request.
        needed: columns that every row has.
        more: columns that it may have.

    Raises:
        RequestError: no such file, no rows, or something in it that is no row, named by its line.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise RequestError(f"{setting}={path}: no file at {file.absolute()}.")
    rows: list[dict[str, Any]] = []
    places: dict[str, str] = {}
    for place, row in read(file, (*needed, *more)):
        where = f"{path}, {place}"
        if not isinstance(row, dict):
            raise RequestError(f"{where}: {type(row).__name__}, not an object with {', '.join(needed)}.")
        check_texts(row, where, needed, more)
        found = {key: row[key] for key in (*needed, *more) if row.get(key) is not None}
        found.setdefault("id", f"{file.stem}/{place}")
        if found["id"] in places:
            raise RequestError(
                f"{where}: id {found['id']!r} is already on {places[found['id']]}; ids have to be unique."
            )
        places[found["id"]] = place
        rows.append(found)
    if not rows:
        raise RequestError(f"{setting}={path}: the file has no rows.")
    return rows


def check_texts(row: Mapping[str, Any], where: str, needed: Sequence[str], more: Sequence[str] = ()) -> None:
    """Check the columns of a row.

    Raises:
        RequestError: one that is needed is missing, is no text or is empty, or another one is no text.
    """
    for key in needed:
        if key not in row:
            raise RequestError(
                f"{where}: '{key}' is missing{nearest(key, row)}; a row needs {', '.join(needed)}."
            )
    for key in (*needed, *(key for key in more if row.get(key) is not None)):
        if wrong := fault(row[key]):
            raise RequestError(f"{where}: '{key}' {wrong}.")
    for key in FILLED:
        if key in needed and not row[key]:
            raise RequestError(f"{where}: '{key}' is empty.")
