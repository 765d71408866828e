"""Rows of a file of the user's: objects that say a prompt, perhaps an answer, and whose ids differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pkt.data.files import fault
from pkt.data.shapes import renamed
from pkt.data.sources import rows_of
from pkt.errors import RequestError, nearest


def records(
    path: str | Path,
    *,
    setting: str,
    split: str,
    names: Sequence[str],
    columns: Mapping[str, str],
    texts: Callable[[Mapping[str, Any], str], Sequence[dict[str, str]]],
) -> list[dict[str, Any]]:
    """Read the rows of a file, with an id each; other columns are not looked at.

    Args:
        path: the file, in one of the forms that `pkt.data.sources` reads.
        setting: what names it in the request.
        split: which part of a set that has several.
        names: columns that `texts` reads.
        columns: what the file calls some of them.
        texts: returns the rows that a row stands for, as texts, the ``id`` among them; an id that no column gives
            stands for the content.

    Raises:
        RequestError: no such file, no rows, or something in it that is no row, named by its line.
    """
    if strange := next((name for name in columns if name not in names), None):
        raise RequestError(
            f"data.columns: '{strange}' is no column that {setting} reads; allowed: {', '.join(names)}"
            f"{nearest(strange, names)}."
        )
    rows: list[dict[str, Any]] = []
    places: dict[str, str] = {}
    times: Counter[str] = Counter()
    for place, row in rows_of(path, setting=setting, split=split, columns={*names, *columns.values()}):
        where = f"{path}, {place}"
        if not isinstance(row, dict):
            raise RequestError(f"{where}: {type(row).__name__}, not an object with columns.")
        row = renamed(row, columns, where)
        for found in texts(row, where):
            if row.get("id") is None:
                found["id"] = _another(found["id"], places, times)
            if found["id"] in places:
                raise RequestError(
                    f"{where}: id {found['id']!r} is already on {places[found['id']]}; ids have to be unique."
                )
            places[found["id"]] = place
            rows.append(found)
    if not rows:
        raise RequestError(f"{setting}={path}: the file has no rows.")
    return rows


def _another(name: str, taken: Collection[str], times: Counter[str]) -> str:
    """Return an id for a row whose content stood there before, as often as `times` counts: its own with a number."""
    while True:
        times[name] += 1
        found = name if times[name] == 1 else f"{name}-{times[name]}"
        if found not in taken:
            return found


def check_texts(row: Mapping[str, Any], where: str, needed: Sequence[str]) -> None:
    """Check the columns of a row.

    Raises:
        RequestError: one that is needed is missing or is no text, or the answer is empty.
    """
    for key in needed:
        if key not in row:
            raise RequestError(
                f"{where}: '{key}' is missing{nearest(key, row)}; a row needs {', '.join(needed)}."
            )
        if wrong := fault(row[key]):
            raise RequestError(f"{where}: '{key}' {wrong}.")
    if "answer" in needed and not row["answer"]:
        raise RequestError(f"{where}: 'answer' is empty.")
