"""Write docs/reference.md: every key of a request, and every option of every group, as the code and conf/ have them.

python scripts/reference.py [--check]

src/pkt/config.py (types, defaults, comments) ─┐
conf/<group>/<option>.yaml (values, comments) ─┴──> docs/reference.md
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pkt.searchpath import groups

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference.md"
CONFIG = ROOT / "src" / "pkt" / "config.py"
HEAD = """# Every key

<!-- made by `python scripts/reference.py` -->

`pkt <verb> --cfg job` prints the keys of a request with their values, `pkt list <group>` the options of a group. A key
is set by `key=value`, an option by `group=option`; what a wrong value may be instead, its message says. `pkt run` and
`pkt transfer` warn of settings in a command that nothing in its request reads.

"""
SKIPPED = ("hydra", "debug")  # groups of Hydra's own, and of pkt's tests
TARGET = "_target_"


def main(words: list[str]) -> int:
    """Write the page, or with ``--check`` say whether it is what would be written."""
    text = HEAD + "\n".join([*_typed(), *_options()]) + "\n"
    if "--check" in words:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def _typed() -> Iterator[str]:
    """Yield a table per dataclass of the typed root, under the keys that hold them."""
    source = CONFIG.read_text(encoding="utf-8")
    lines = source.splitlines()
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    yield "## Keys of every request"
    for path, name in _nodes("Config", classes):
        fields = [node for node in classes[name].body if isinstance(node, ast.AnnAssign)]
        rows = [
            f"| `{path}{_name(node)}` | {_default(node)} | {_escaped(_comment(node, lines))} |"
            for node in fields
            if _class_of(node) not in classes
        ]
        if rows:
            yield from ("", f"### {path.rstrip('.') or 'The root'}", "", _told(classes[name]), "", "| key | default | |", "|---|---|---|", *rows)  # fmt: skip  # noqa: E501


def _nodes(name: str, classes: dict[str, ast.ClassDef], path: str = "") -> Iterator[tuple[str, str]]:
    yield path, name
    for node in classes[name].body:
        if isinstance(node, ast.AnnAssign) and (inner := _class_of(node)) in classes:
            yield from _nodes(inner, classes, f"{path}{_name(node)}.")


def _name(node: ast.AnnAssign) -> str:
    return ast.unparse(node.target)


def _class_of(node: ast.AnnAssign) -> str:
    return ast.unparse(node.annotation)


def _told(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")


def _default(node: ast.AnnAssign) -> str:
    """Return the default of a field as YAML has it, and its type where it has none."""
    value = node.value
    if isinstance(value, ast.Call):
        given = [
            word.value for word in value.keywords if word.arg in ("default", "factory", "default_factory")
        ]
        value = value.args[0] if value.args else given[0] if given else None
    if value is None or (isinstance(value, ast.Name) and value.id == "MISSING"):
        return f"({_class_of(node)})"
    text = ast.unparse(value.body if isinstance(value, ast.Lambda) else value)
    known = {
        "None": "`null`",
        "True": "`true`",
        "False": "`false`",
        "dict": "`{}`",
        "list": "`[]`",
        "MISSING": "(set)",
    }
    return known.get(text, f"`{text.strip(chr(39))}`")


def _comment(node: ast.AnnAssign, lines: list[str]) -> str:
    """Return the comment above a field, and the one behind it."""
    above: list[str] = []
    number = node.lineno - 2
    while number >= 0 and lines[number].strip().startswith("#"):
        above.insert(0, lines[number].strip().lstrip("# "))
        number -= 1
    last = lines[(node.end_lineno or node.lineno) - 1]
    behind = last.partition("  # ")[2]
    return " ".join([*above, behind]).strip()


def _options() -> Iterator[str]:
    yield from ("", "## Options of the groups")
    for group, names in groups().items():
        if group in SKIPPED:
            continue
        yield from ("", f"### `{group}=`", "")
        for name in names:
            yield from _option(ROOT / "conf" / group / f"{name}.yaml", name)


def _option(file: Path, name: str) -> Iterator[str]:
    """Yield an option's first comment, and its keys that have one."""
    lines = file.read_text(encoding="utf-8").splitlines()
    first = [line.lstrip("# ") for line in _leading(lines) if not line.startswith("# @package")]
    yield f"- **`{name}`** {_escaped(' '.join(first))}"
    path: list[tuple[int, str]] = []
    for line in lines:
        found = re.match(r"( *)([\w@.]+):(.*)$", line)
        if not found or found[2] in ("defaults", TARGET):
            continue
        depth, key, rest = len(found[1]), found[2], found[3]
        path = [entry for entry in path if entry[0] < depth] + [(depth, key)]
        value, _, comment = rest.partition(" # ")
        if value.strip() and comment.strip():
            dotted = ".".join(part for _, part in path)
            yield f"    - `{dotted}`: `{value.strip()}` {_escaped(comment.strip())}"


def _leading(lines: list[str]) -> list[str]:
    count = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:count]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
