"""pystdlib: write the body of a function of Python's standard library from its signature and docstring.

    source files of the stdlib -> ast -> functions with a docstring -> split by module -> rows

This gives real code without a download. `prompt + answer` is the exact source of the function: the prompt ends with the
docstring's closing quotes, the answer begins with the newline after them. The functions differ between versions of
Python, so compare results of one version only. No module and no body is in two splits.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pkt.tasks.base import Given, Row, RowTask
from pkt.tasks.grading import Likelihood

# upper bounds on a module's hash, of 100: a module's functions are all in one split
SHARES = {"test": 20, "validation": 32, "extract": 37, "align": 48, "train": 100}
CAPS = {"extract": 32, "align": 128, "validation": 200, "test": 200}  # train: all there are
SKIPPED = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip", "turtledemo", "lib-dynload",
    "__phello__", "__pycache__", "_pyrepl", "distutils", "pydoc_data", "encodings",
}  # fmt: skip
PER_MODULE = 16  # functions: keeps a large module (turtle, tkinter) from being the split
BODY = (40, 600)  # characters
PROMPT = (40, 1200)


@dataclass(frozen=True, kw_only=True)
class Library(RowTask):
    """How likely the body of a function is to a model; ids are ``module.qualname``."""

    version = 1
    gradings = (Likelihood(),)

    def rows(self, split: str, given: Given) -> list[Row]:
        """See `Task`."""
        return library_rows(split)


def library_rows(split: str) -> list[Row]:
    """Return the functions of a split, in an order that depends on the library's source alone."""
    return [dict(row) for row in _all_rows()[split]]


@lru_cache(maxsize=1)
def _all_rows() -> dict[str, tuple[dict[str, Any], ...]]:
    """Parse the library once per process (about two seconds)."""
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in SHARES}
    bodies: set[str] = set()
    for module, path in _modules(Path(sysconfig.get_path("stdlib"))):
        taken = 0
        for name, prompt, answer in _functions(path):
            key = " ".join(answer.split())
            if taken < PER_MODULE and key not in bodies:
                bodies.add(key)
                taken += 1
                split = split_of(module)
                row = {"id": f"{module}.{name}", "split": split}
                found[split].append(row | {"prompt": prompt, "answer": answer})
    return {
        split: tuple(sorted(some, key=lambda row: _hash(row["id"]))[: CAPS.get(split)])
        for split, some in found.items()
    }


def split_of(module: str) -> str:
    """Return the split of a module (dotted name), by a hash that is the same on every machine."""
    place = _hash(module) % 100
    return next(split for split, bound in SHARES.items() if place < bound)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _modules(library: Path) -> Iterator[tuple[str, Path]]:
    """Yield dotted names and files, sorted by name."""
    files: dict[str, Path] = {}
    for top in library.iterdir():
        if top.name in SKIPPED or top.name.startswith(("_sysconfigdata", "config-")):
            continue
        for path in [top] if top.is_file() else top.rglob("*.py"):
            relative = path.relative_to(library).with_suffix("")
            if path.suffix == ".py" and not SKIPPED.intersection(relative.parts):
                files[".".join(relative.parts).removesuffix(".__init__")] = path
    yield from sorted(files.items())


def _functions(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (qualified name, prompt, answer) of a file's functions with docstring, in source order."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError):
        return
    lines = source.splitlines(keepends=True)
    if "\f" in source or "\r" in source:  # splitlines and ast would count lines differently
        return
    seen: set[str] = set()
    for name, node in _definitions(tree, ""):
        parts = _cut(node, lines)
        if parts and name not in seen:
            seen.add(name)
            yield name, *parts


def _definitions(node: ast.AST, outer: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield functions and methods with qualified names; functions inside functions belong to the outer one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield outer + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _definitions(child, f"{outer}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _definitions(child, outer)


def _cut(node: ast.FunctionDef, lines: list[str]) -> tuple[str, str] | None:
    """Cut a function's source after its docstring; None where it has none or the parts' lengths do not fit."""
    if len(node.body) < 2 or ast.get_docstring(node, clean=False) is None or node.end_lineno is None:
        return None
    text = node.body[0]
    if text.end_lineno is None or text.end_col_offset is None:
        return None
    last = lines[text.end_lineno - 1].encode()
    head, tail = last[: text.end_col_offset].decode(), last[text.end_col_offset :].decode()
    prompt = "".join(lines[node.lineno - 1 : text.end_lineno - 1]) + head
    answer = (tail + "".join(lines[text.end_lineno : node.end_lineno])).rstrip("\n")
    fits = PROMPT[0] <= len(prompt) <= PROMPT[1] and BODY[0] <= len(answer) <= BODY[1]
    return (prompt, answer) if fits and tail == "\n" and node.body[1].lineno > text.end_lineno else None
