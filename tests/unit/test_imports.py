"""Arrows between packages run one way, and the command line imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "src" / "pkt"
# a package may import packages with a higher number, and leaves; equal numbers do not know each other
LEVEL = {
    "paper": 0,
    "cli": 0,
    "__main__": -1,
    "pipeline": 1,
    "stages": 2,
    "methods": 3,
    "analysis": 3,
    "training": 4,
    "attribution": 5,
    "semantics": 6,
    "mapping": 6,
    "objectives": 6,
    "models": 7,
    "tasks": 5,
    "data": 7,
}
# leaf -> what it may import beyond the modules that everyone may
LEAVES = {
    "store": {"manifest"},
    "manifest": set(),
    "run": {"config"},
    "sweep": {"reporting", "tracking"},
    "tracking": {"config", "manifest"},
    "checks": {"config"},
    "build": {"plugins", "settings"},
    "settings": set(),
    "explain": {"plugins", "searchpath", "checks"},
    "plugin_options": {"plugins"},
    "plugins": set(),
    "searchpath": {"config", "plugin_options", "plugins"},
    "saving": set(),
    "words": {"checks"},
    "reporting": {"evaluation", "attribution", "data", "manifest", "tracking"},
    "evaluation": {"data", "models", "sandbox", "saving"},
    "sandbox": set(),
    "assets": set(),
    "config": set(),
}
EVERYWHERE = {"errors", "console", "config", "settings", "table", ""}
TOP = {"cli", "pipeline", "paper"}  # who may use the leaves that are about the request itself
BY_NAME = {("tasks", "build"), ("tasks", "searchpath")}  # a task is found by the name of its file
REQUEST = {"checks", "build", "explain", "searchpath", "sweep", "words"}


def package(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports() -> Iterator[tuple[str, str, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        for entry in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(entry, ast.ImportFrom) and entry.module and entry.module.split(".")[0] == "pkt":
                parts = entry.module.split(".")
                names = [parts[1]] if len(parts) > 1 else [alias.name for alias in entry.names]
            elif isinstance(entry, ast.Import):
                names = [a.name.split(".")[1] for a in entry.names if a.name.startswith("pkt.")]
            else:
                continue
            for name in names:
                yield str(path.relative_to(ROOT)), package(path), "" if name.startswith("__") else name


def test_arrows_run_one_way():
    wrong = []
    for file, source, target in imports():
        if source == target or target in EVERYWHERE or source in ("console", "errors"):
            continue
        if source in LEAVES:
            allowed = target in LEAVES[source]
        elif target in LEAVES:
            allowed = source in TOP or target not in REQUEST or (source, target) in BY_NAME
        else:
            allowed = LEVEL[source] < LEVEL[target]
        if not allowed:
            wrong.append(f"{file}: {source} -> {target}")
    assert not wrong


def test_every_package_has_its_place():
    found = {package(path) for path in ROOT.rglob("*.py")}
    assert found <= set(LEVEL) | set(LEAVES) | {"errors", "console", "settings", "table", "__init__"}


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_imports_neither_hydra_nor_torch(words: list[str]):
    code = (
        "import sys; from pkt.cli import main; main(sys.argv[1:]);"
        "assert not {'torch', 'hydra', 'transformers', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *words], check=True, timeout=30, stdout=subprocess.DEVNULL)
