"""A tiny random pair on disk, rows as JSONL, and the real command line in this process."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tiny import tiny_model, tiny_tokenizer


@dataclass(frozen=True, kw_only=True)
class Result:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> dict[str, Path]:
    """Folders `teacher` (6 layers, width 48) and `student` (4 layers, width 32), and `train`, `test` JSONL."""
    root = tmp_path_factory.mktemp("pair")
    for name, sizes in (("teacher", {"depth": 6, "width": 48, "seed": 1}), ("student", {"seed": 2})):
        tiny_model("llama", **sizes).save_pretrained(root / name)
        tiny_tokenizer().save_pretrained(root / name)
    rows = [
        {"id": str(i), "prompt": f"Ada has {i % 12} apples. How many?\nResult:", "answer": f" {i % 12}"}
        for i in range(80)
    ]
    for name, chosen in (("train", rows[:64]), ("test", rows[64:])):
        text = "\n".join(json.dumps(row) for row in chosen)
        (root / f"{name}.jsonl").write_text(text + "\n", encoding="utf-8")
    return {"teacher": root / "teacher", "student": root / "student", "root": root}


@pytest.fixture
def tiny_request(pair) -> list[str]:
    """Overrides that make any verb run on the tiny pair in seconds."""
    return [
        f"model.teacher.checkpoint={pair['teacher']}",
        f"model.student.checkpoint={pair['student']}",
        "model.teacher.dtype=float32",
        "model.student.dtype=float32",
        "benchmark=custom",
        f"data.train={pair['root'] / 'train.jsonl'}",
        f"data.test={pair['root'] / 'test.jsonl'}",
        "data.sizes.extract=4",
        "data.sizes.align=8",
        "data.sizes.train=16",
        "data.sizes.validation=4",
        "optim.epochs=2",
        "optim.batch_size=8",
        "eval.limit=4",
        "eval.max_new_tokens=3",
        "tracker=none",
        "threads=1",
    ]


def _leave_modules_to_themselves() -> None:
    """Keep imported modules out of garbage collections: pkt frees models by one after each stage of a tiny run."""
    if len(sys.modules) > _seen["modules"]:
        gc.collect()
        gc.freeze()
        _seen["modules"] = len(sys.modules)


_seen = {"modules": 0}


@pytest.fixture
def pkt(tmp_path, monkeypatch, capfd) -> Run:
    """Call the command line with its outputs in a fresh folder; `pkt.outputs` names it."""
    from pkt.cli import main

    _leave_modules_to_themselves()
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(outputs))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        capfd.readouterr()
        try:
            code = main(list(words))
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Result(code=code, out=captured.out, err=captured.err)

    run.outputs = outputs  # type: ignore[attr-defined]
    return run


@pytest.fixture
def task_folder(tmp_path) -> Path:
    """Write a folder of lm-eval tasks: `foreign_choice`, to be scored only, and `foreign_sums` with train rows."""
    folder = tmp_path / "lm_eval_tasks"
    folder.mkdir()
    (folder / "rows.py").write_text(
        "import datasets\n"
        "def load(**_):\n"
        "    rows = [{'q': f'Ada has {n}.', 'o': [' yes', ' no', ' red green'], 'a': n % 3} for n in range(12)]\n"
        "    return {'test': datasets.Dataset.from_list(rows)}\n"
        "def sums(**_):\n"
        "    rows = [{'q': f'{n}+1=', 'a': str(n + 1)} for n in range(60)]\n"
        "    cut = {'train': rows[:40], 'test': rows[36:]}\n"
        "    return {split: datasets.Dataset.from_list(some) for split, some in cut.items()}\n",
        encoding="utf-8",
    )
    (folder / "foreign_choice.yaml").write_text(
        "task: foreign_choice\ncustom_dataset: !function rows.load\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: o\ndoc_to_target: a\ntarget_delimiter: ''\n"
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
        "  - {metric: acc_norm, aggregation: mean, higher_is_better: true}\nmetadata: {version: 3}\n",
        encoding="utf-8",
    )
    (folder / "foreign_sums.yaml").write_text(
        "task: foreign_sums\ncustom_dataset: !function rows.sums\ntraining_split: train\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\ntarget_delimiter: ' '\n"
        "generation_kwargs: {until: ['\\n'], max_gen_toks: 4}\n"
        "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture
def no_index(tmp_path, monkeypatch) -> None:
    """Let lm-eval's index be a short one, and fail where it is made anew."""
    from pkt.tasks import lm_eval_index

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = lm_eval_index.cache_file()
    file.parent.mkdir(parents=True)
    file.write_text('{"arc_easy": ["arc"], "gsm8k_cot": ["gsm8k"]}', encoding="utf-8")
    monkeypatch.setattr(lm_eval_index, "_made", lambda: pytest.fail("lm-eval's tasks were indexed"))


@pytest.fixture
def plain_descent(monkeypatch) -> None:
    """Put SGD in AdamW's place, for tests that compare weights.

    AdamW's first steps turn a gradient that is nothing but rounding into a whole step, so weights under it depend on
    the order in which a processor adds numbers; under SGD they are as good as the gradients.
    """
    monkeypatch.setattr(torch.optim, "AdamW", lambda parameters, lr, **_: torch.optim.SGD(parameters, lr=lr))
