"""pkt from Python: the same results as the command line, and nothing of it left in the process."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import pkt as library
from pkt import RequestError
from pkt.api import sweep
from pkt.errors import PktError


@pytest.fixture
def words(tiny_request, tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    return [*tiny_request, "method=semalign_joint"]


def test_a_run_gives_what_the_command_line_leaves(words, pkt):
    result = library.run(*words)
    assert set(result.scores) == {"teacher", "student", "transferred"}
    score = next(iter(result.scores["transferred"].values()))
    assert {"metric", "value", "stderr", "n"} <= set(score)
    assert "| teacher |" in result.table
    assert result.report.name == "report.html"
    assert (result.checkpoint / "config.json").is_file()
    assert result.request["optim"]["epochs"] == 2
    assert [stage["stage"] for stage in result.stages] == [
        "extract", "align", "transfer", "eval teacher", "eval student", "eval transferred",
    ]  # fmt: skip
    assert all(stage["path"].is_dir() for stage in result.stages)
    told = pkt("run", *words)
    assert (told.code, told.out.count(" reused ")) == (0, 6)
    assert str(result.checkpoint) in told.out


@pytest.mark.slow
def test_stages_alone(words):
    assert library.extract(*words).stages[-1]["stage"] == "extract"
    assert library.transfer(*words).checkpoint is not None
    again = library.evaluate(*words, "eval.models=[student]")
    assert set(again.scores) == {"student"}
    assert library.plan(*words).plan["stages"]
    assert library.extract(*words).stages[-1]["reused"]


@pytest.mark.slow
def test_a_sweep_has_a_result_per_job(words):
    found = sweep(*words, "seed=0,1")
    assert [one.request["seed"] for one in found.results] == [0, 1]
    assert found[{"seed": 1, "method": "semalign_joint"}].folder.name == "1"
    assert "| semalign_joint |" in found.table
    assert found.report.is_file()
    with pytest.raises(RequestError, match="2 jobs"):
        found[{"method": "semalign_joint"}]


def test_nothing_is_left_in_the_process(words, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("a: 1\n")
    with initialize_config_dir(config_dir=str(tmp_path / "own"), version_base=None):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        before = state()
        library.run(*words)
        for wrong in (["optim.lr=much"], ["optim.lr=much", "optim.lx=1", "seed=x"]):
            with pytest.raises(RequestError):
                library.run(*words, *wrong)
        assert state() == before
        assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == drawn
        assert compose("mine").a == 1
    assert not GlobalHydra.instance().is_initialized()


def state() -> tuple:
    root = logging.getLogger()
    return (
        list(sys.argv), dict(os.environ), torch.get_num_threads(), root.level, list(root.handlers), Path.cwd(),
        torch.backends.cudnn.deterministic, torch.is_grad_enabled(), torch.get_default_dtype(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["optim.lr=much"], "optim.lr: a number is expected"),
        (["optim.lx=1"], "optim.lx"),
        (["-m", "seed=0,1"], "call pkt.sweep"),
        (["--cfg", "job"], "use the command line"),
        (["benchmark=custom", "data.train=nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_is_wrong_is_raised_in_words_and_leaves_nothing(words, tmp_path, asked, told):
    with pytest.raises(RequestError, match=told):
        library.run(*asked)
    assert not (tmp_path / "outputs").exists()


def test_values_of_another_type_are_refused_in_words(tmp_path):
    for call in (library.run, library.plan, sweep):
        with pytest.raises(RequestError, match=r"words are texts, as after `pkt`"):
            call(["method=sft"])
        with pytest.raises(RequestError, match="words are texts"):
            call("method=sft", tmp_path)
    assert library.Result(folder=str(tmp_path)).folder == tmp_path
    with pytest.raises(RequestError, match=r"sweep.results has all jobs"):
        library.Sweep(folder=tmp_path)[0]


@pytest.mark.slow
def test_a_job_that_fails_ends_a_sweep(words):
    with pytest.raises(PktError, match="a job of the sweep"):
        sweep(*words, "mapping=explicit", "mapping.layers=[[1,1]],[[9,9]]")
    with pytest.raises(RequestError, match="verb=runs"):
        sweep(*words, verb="runs")


def test_importing_pkt_imports_nothing_else():
    code = "import sys, pkt; print(*sorted(name for name in sys.modules if name.startswith('pkt')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pkt"]
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        _ = library.runs


def test_no_function_has_the_name_of_a_module():
    """Importing a module of a package sets an attribute of its name there, in place of whatever was called that."""
    folder = Path(library.__file__).parent
    modules = {
        path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert modules & set(library.__all__) == {"blocks"}
