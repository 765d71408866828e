import ast
import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pkt.tasks.pystdlib import SHARES, library_rows, split_of


@pytest.fixture(scope="module")
def everything():
    return {split: library_rows(split) for split in SHARES}


def test_sizes_and_keys(everything):
    assert 150 <= len(everything["test"]) <= 200  # 200 with Python 3.11
    assert len(everything["train"]) >= 1000
    assert [len(everything[split]) for split in ("extract", "align")] == [32, 128]
    assert len(everything["validation"]) >= 100
    for split, some in everything.items():
        assert all(set(row) == {"id", "split", "prompt", "answer"} and row["split"] == split for row in some)


def test_rows_are_whole_functions_with_docstrings(everything):
    for some in everything.values():
        for row in some:
            source = row["prompt"] + row["answer"]
            (node,) = ast.parse("class _:\n" + source if source[0] == " " else source).body
            node = node.body[0] if isinstance(node, ast.ClassDef) else node
            assert isinstance(node, ast.FunctionDef)
            assert ast.get_docstring(node) is not None
            assert row["answer"].startswith("\n")
            assert 40 <= len(row["answer"]) <= 600
            assert row["id"].endswith(node.name)


def test_joined_source_stands_in_the_file():
    import textwrap as module

    row = next(row for split in SHARES for row in library_rows(split) if row["id"].startswith("textwrap."))
    assert row["prompt"] + row["answer"] in Path(module.__file__).read_text(encoding="utf-8")


def test_no_module_body_or_id_is_in_two_splits(everything):
    flat = [row for some in everything.values() for row in some]
    assert len({row["id"] for row in flat}) == len(flat)
    assert len({" ".join(row["answer"].split()) for row in flat}) == len(flat)
    for split, some in everything.items():
        modules = {module_of(row["id"]) for row in some}
        assert {split_of(module) for module in modules} == {split}


def module_of(identity):
    """The longest prefix that is a module."""
    parts = identity.split(".")
    library = Path(sysconfig.get_path("stdlib"))
    for end in range(len(parts), 0, -1):
        place = library.joinpath(*parts[:end])
        if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
            return ".".join(parts[:end])
    raise AssertionError(identity)


@pytest.mark.slow
def test_order_does_not_depend_on_the_process(everything):
    code = (
        "import hashlib; from pkt.tasks.pystdlib import library_rows; "
        "print(hashlib.sha256(repr(library_rows('test')).encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == hashlib.sha256(repr(everything["test"]).encode()).hexdigest()


def test_rows_are_copies(everything):
    assert library_rows("train") == everything["train"]
    library_rows("train")[0]["prompt"] = ""
    assert library_rows("train")[0]["prompt"]
