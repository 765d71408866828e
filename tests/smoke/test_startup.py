"""What a request imports: help, refusals and reused results are made of plain Python, and answer at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# top-level modules, and why each stays out of a request that computes nothing; seconds of CPU on one core
COMPUTING = {
    "torch": "1.6 s; keys, tables and refusals hold no tensor",
    "transformers": "0.8 s, with its models 3 s; a plan reads what is remembered of the configs",
    "peft": "3 s: it imports models of transformers and torch's compiler; only adapters need it",
    "datasets": "0.8 s, pandas and pyarrow among it; rows are plain dicts",
    "pandas": "0.5 s; it comes with datasets",
    "pyarrow": "0.1 s; only a parquet file of rows needs it",
    "scipy": "0.9 s with scipy.stats; Student's t is needed for several seeds, Spearman's rank for `pkt analyze`",
    "lm_eval": "seconds; it comes with a model that is scored",
    "accelerate": "it comes with torch; models are spread and processes started by it",
    "sympy": "0.4 s; it comes with torch's compiler",
    "wandb": "0.5 s; tracker=none does not ask for it",
}
SHOWING = {
    "numpy": "0.1 s; only answers are resampled with it",
    "matplotlib": "0.6 s; figures are drawn of results",
    "jinja2": "0.1 s; pages are made of results",
    "safetensors": "only results have tensors",
    "huggingface_hub": "only a model's name on the hub needs it",
    "pkt.pipeline": "it imports all strategies and stages",
}
CODE = (
    "import json, sys; found, *words = sys.argv[1:]; from pkt.cli import main; code = main(words);"
    "open(found, 'w').write(json.dumps([code, [*sys.modules]]))"
)


def request(folder: Path, *words: str) -> tuple[int, set[str], str]:
    """Exit code, the modules that were imported, and what was told, of a request in a process of its own."""
    found = folder / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(found), *words],
        env=os.environ | {"PKT_OUTPUT_DIR": str(folder / "outputs")},
        check=True,
        cwd=folder,
        timeout=300,
        capture_output=True,
        text=True,
    )
    code, modules = json.loads(found.read_text(encoding="utf-8"))
    return code, set(modules), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["transfer", "--help"], 0),
        (["transfer", "--cfg", "job"], 0),
        (["transfer", "optim.lx=3"], 2),
        (["run", "optim.precision=float8"], 2),
        (["run", "benchmark=custom", "data.train=nowhere.jsonl"], 2),
        (["eval", "model.student.checkpoint=./nowhere"], 2),
    ],
)
def test_help_and_refusals_import_nothing_that_computes_or_shows(tmp_path, words, code):
    found, modules, told = request(tmp_path, *words)
    assert found == code, told
    assert {name: why for name, why in (COMPUTING | SHOWING).items() if name in modules} == {}


def test_a_request_of_which_all_is_reused_imports_nothing_that_computes(pkt, tiny_request, tmp_path):
    words = ["run", "method=semalign_joint", *tiny_request]
    assert (first := pkt(*words)).code == 0, first.err
    code, modules, told = request(tmp_path, *words)
    assert (code, told.count(" reused "), told.count(" computed ")) == (0, 6, 0), told
    assert {name: why for name, why in COMPUTING.items() if name in modules} == {}
