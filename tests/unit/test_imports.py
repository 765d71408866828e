"""The command line answers for help without importing anything heavy; import-linter sees to the packages' arrows."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pkt

SOURCES = Path(pkt.__file__).parent
# their classes derive from those of the libraries; imported where a model is scored
EAGER = tuple(f"evaluation/{name}.py" for name in ("asking", "scorer", "served", "criteria", "drawing"))


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_imports_the_standard_library_and_nothing_else(words: list[str]):
    code = (
        "import sys; before = set(sys.modules); from pkt.cli import main; main(sys.argv[1:]);"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert new <= {'pkt', *sys.stdlib_module_names}, new"
    )
    subprocess.run([sys.executable, "-c", code, *words], check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_every_verb_that_is_named_can_be_run():
    from pkt import pipeline
    from pkt.verbs import RUNS

    assert pipeline.VERBS.keys() | {"doctor", "plan", "rows"} == RUNS.keys()  # which have no session


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """The modules that are imported when a module is."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from imported_at_once([*node.body, *node.orelse])


def test_libraries_that_take_seconds_are_imported_at_their_first_use():
    late = (
        "torch",
        "transformers",
        "peft",
        "datasets",
        "scipy",
        "lm_eval",
        "matplotlib",
        "accelerate",
        "wandb",
    )
    found = {
        (file.relative_to(SOURCES).as_posix(), name)
        for file in SOURCES.rglob("*.py")
        for name in imported_at_once(ast.parse(file.read_text(encoding="utf-8")).body)
        if name.partition(".")[0] in late or name in ("safetensors.torch", "huggingface_hub.errors")
    }
    assert {(file, name) for file, name in found if file not in EAGER} == set()
