"""Every example runs as its first lines say, on the built-in pair."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = [
    "threads=1", "optim.steps=4", "eval.limit=6", "data.sizes.extract=8", "data.sizes.align=16",
    "data.sizes.validation=8",
]  # fmt: skip
LONG = {"own_rows.py": SMALL, "compare_methods.py": SMALL, "cut_student.py": SMALL}
SHOWN = {
    "own_rows.py": "semalign_joint: exact_match",
    "compare_methods.py": "the page, with paired intervals:",
    "cut_student.py": "transferred ",
    "own_loop.py": "step  29",
    "look_inside.py": "teacher layer 5 and student layers: CKA",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "own_loop.py" else [pytest.mark.slow]) for name in SHOWN]
)
def test_an_example_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *LONG.get(name, [])],
        env=os.environ | {"PKT_OUTPUT_DIR": str(tmp_path / "outputs"), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert SHOWN[name] in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_the_python_in_the_docs_runs(number, tmp_path):
    page = (EXAMPLES.parent / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    done = subprocess.run(
        [sys.executable, "-c", blocks[number]],
        env=os.environ | {"PKT_OUTPUT_DIR": str(tmp_path / "outputs")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr


def test_every_example_is_run_and_listed():
    files = {file.name for file in EXAMPLES.iterdir()} - {"README.md"}
    assert files == {*SHOWN, "first_steps.ipynb"}
    told = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in files if f"]({name})" not in told] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own machinery
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path / "outputs"))
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("optim.steps=60", "optim.steps=4").replace("limit=50", "limit=6")
    client.NotebookClient(
        notebook, timeout=250, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert {"text/markdown", "image/png"} <= kinds
