"""The command line answers for help without importing anything heavy; import-linter sees to the packages' arrows."""

from __future__ import annotations

import subprocess
import sys

import pytest


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

    assert pipeline.VERBS.keys() | {"doctor", "plan"} == RUNS.keys()  # which have no session
