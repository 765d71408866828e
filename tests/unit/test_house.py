"""The house's limits: how long files and functions may be, and no code that only tests use."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for folder in ("src/pkt", "scripts") for path in (ROOT / folder).rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 60
USED_ELSEWHERE = {
    # called or read by a library
    "disable_tqdm", "generate_until", "eot_token_id", "tokenizer_name", "chat_template", "tok_encode",  # lm-eval
    "loglikelihood_rolling", "_loglikelihood_tokens",   # lm-eval
    "manipulate_search_path", "on_run_start", "on_multirun_start", "on_job_start", "available", "is_config",   # Hydra
    "pre_tokenizer", "normalizer", "filters", "deterministic",        # tokenizers, Jinja, cuDNN
    "lora_dropout", "base_model_name_or_path",          # PEFT
    "on_files", "on_page_markdown",                     # mkdocs
    "__dir__", "__call__", "_repr_markdown_",           # Python, Jupyter
    # called by the terms of plugins (docs/extending.md)
    "later",
    # dispatched by name
    "_config", "_metrics", "_artifact", "_page",
    # values of an enumeration that are compared as text
    "FAIL", "TIMEOUT", "CRASH", "WORKS", "REFUSED", "SKIPPED",
    # called or read by Python itself
    "cache_tag", "create_module", "readlines", "settrace", "_recreate_cm", "__instancecheck__", "__deepcopy__",
    # read by the name that it has in configs
    "pkt_cut",
    # fields that a whole record's dictionary carries to a file
    "cosine_centred", "explained_variance", "gap_closed_stderr", "difference_low", "difference_high", "inside_noise",
    "teacher_neurons",
}  # fmt: skip


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_files_are_short():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_functions_are_short():
    lengths = {
        (str(path.relative_to(ROOT)), name): lines for path in FILES for name, lines in functions(path)
    }
    assert {where: lines for where, lines in lengths.items() if lines > MOST_LINES_OF_A_FUNCTION} == {}


def test_no_code_is_kept_alive_by_tests_alone():
    """Look at everything but the tests; a class that a YAML file names is used."""
    vulture = pytest.importorskip("vulture")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "conf").rglob("*.yaml")]
    named = {name for text in texts for name in re.findall(r"_target_: pkt\.[\w.]*?(\w+)\s", text)}
    assert "LaTen" in named
    found = vulture.Vulture()
    found.scavenge([str(path) for path in FILES])
    unused = [
        item for item in found.get_unused_code(min_confidence=60) if item.name not in named | USED_ELSEWHERE
    ]
    assert [f"{item.filename}:{item.first_lineno} {item.name}" for item in unused] == []
