"""The real `pkt` in a subprocess, with a pipeline that only does what a test asks of it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Inline = Callable[..., subprocess.CompletedProcess[str]]

# stands in for pkt.pipeline: what happens is chosen by seed, so that a sweep can mix outcomes
FAKE = """
import sys, types, time
from pathlib import Path
from pkt.errors import PktError, RequestError
fake = types.ModuleType("pkt.pipeline")
def run_verb(cfg, run_dir):
    Path(run_dir, "verb").write_text(f"{cfg.verb} {cfg.seed} {cfg.optim.lr}")
    if cfg.seed == 1: raise PktError("the hub is out of reach: give a local folder")
    if cfg.seed == 2: raise RequestError("layer 9 is out of range")
    if cfg.seed == 3: raise ZeroDivisionError("division by zero")
    if cfg.seed == 4:
        print("working", flush=True)
        time.sleep(60)
    print("done", cfg.seed)
fake.run_verb = run_verb
sys.modules["pkt.pipeline"] = fake
from pkt.cli import main
sys.exit(main())
"""
NANO = "{checkpoint: package:pkt/assets/nano/student}"
PLACEHOLDERS = {
    "model/nano.yaml": f"name: nano\nteacher: {NANO}\nstudent: {NANO}",
    "benchmark/nano.yaml": "name: nano\ntasks: [facts]",
    "mapping/depth.yaml": "_target_: pkt.mapping.Depth",
    "mapping/critical.yaml": "_target_: pkt.mapping.Critical\ntop_n: 1",
    "semantics/ridge.yaml": "_target_: pkt.semantics.Ridge",
    "semantics/cosine.yaml": "_target_: pkt.semantics.Cosine",
    "objective/joint.yaml": "_target_: pkt.objectives.Objective",
    "objective/cosine.yaml": "_target_: pkt.objectives.Objective",
    "objective/ce.yaml": "_target_: pkt.objectives.Objective",
    "model/mine.yaml": "name: mine",
}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    for name, text in PLACEHOLDERS.items():
        file = tmp_path / "user" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    own = {
        "PKT_CONFIG_DIR": str(tmp_path / "user"),
        "PKT_OUTPUT_DIR": str(tmp_path / "out"),
        "OMP_NUM_THREADS": "1",
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PKT_", "HYDRA_", "WANDB_"))}
    return kept | own


def pkt(env: dict[str, str], *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FAKE, *words]
    folder = cwd or Path(env["PKT_CONFIG_DIR"])
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def inline(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Inline:
    """Run `pkt` in this process: three times as fast as a subprocess."""
    for name in [name for name in os.environ if name.startswith(("PKT_", "HYDRA_", "WANDB_"))]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(env["PKT_CONFIG_DIR"])
    monkeypatch.setattr(sys, "argv", ["pkt"])
    fake = ModuleType("pkt.pipeline")
    fake.__dict__["run_verb"] = lambda cfg, run_dir: (run_dir / "verb").write_text("")
    monkeypatch.setitem(sys.modules, "pkt.pipeline", fake)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        from hydra.core.hydra_config import HydraConfig

        from pkt.cli import main

        capfd.readouterr()
        handlers = logging.root.handlers[:]
        code = main(words)
        logging.root.handlers[:] = handlers
        HydraConfig.instance().cfg = None
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return run


def run_dirs(env: dict[str, str], verb: str) -> list[Path]:
    return sorted(path.parent for path in Path(env["PKT_OUTPUT_DIR"], "runs", verb).rglob("verb"))


def refused(done: subprocess.CompletedProcess[str], *parts: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("pkt: ")
    for part in parts:
        assert part in line


def test_help_names_what_there_is(
    env: dict[str, str],
):  # that it imports nothing heavy: tests/unit/test_imports.py
    done = subprocess.run(
        [sys.executable, "-m", "pkt", "--help"], env=env, capture_output=True, text=True, check=True
    )
    for word in ("transfer", "semalign_joint", "PKT_OUTPUT_DIR", "exit codes", "mine"):
        assert word in done.stdout


def test_help_of_a_verb_lists_groups_and_config(inline: Inline):
    done = inline("transfer", "--help")
    assert done.returncode == 0
    for word in ("pkt transfer:", "optim: ", "lr: 0.0003", "semalign_joint"):
        assert word in done.stdout


def test_version(env: dict[str, str]):
    assert pkt(env, "--version").stdout.startswith("pkt 0.")


def test_run_leaves_its_folder(env: dict[str, str]):
    done = pkt(env, "transfer", "optim.lr=0.01", "seed=0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done 0\n", "")
    (folder,) = run_dirs(env, "transfer")
    assert (folder / "verb").read_text() == "transfer 0 0.01"
    assert (folder / ".hydra" / "overrides.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["rnu"], ["unknown verb 'rnu'", "transfer", "did you mean 'run'"]),
        (["run", "model=nani"], ["model=nani", "mine, nano", "did you mean 'nano'"]),
        (["run", "modle=nano"], ["unknown key 'modle'", "did you mean 'model'"]),
        (
            ["run", "optim.lrr=1"],
            ["unknown key 'optim.lrr'", "allowed here: batch_size", "did you mean 'lr'"],
        ),
        (["run", "+optim.foo=1"], ["unknown key 'optim.foo'", "allowed here: batch_size"]),
        (["run", "method.update.rnk=1"], ["unknown key 'method.update.rnk'", "did you mean 'rank'"]),
        (["run", "optim.lr=abc"], ["optim.lr: a number is expected, got 'abc'"]),
        (["run", "optim.lr=-1"], ["optim.lr: a value above 0 is expected, got -1"]),
        (["run", "optim.schedule=cosin"], ["optim.schedule: got 'cosin'", "linear", "did you mean 'cosine'"]),
        (["run", "device=gpu"], ["device: got 'gpu'", "cuda:N"]),
        (["run", "refresh=[aling]"], ["refresh: got 'aling'", "did you mean 'align'"]),
        (["run", "mapping=null"], ["config group takes the name"]),
        (["run", "benchmark.name=???"], ["not set: benchmark.name"]),
        (["run", "seed=${nope}"], ["nope"]),
        (["run", "a=["], ["cannot read the override 'a=['"]),
        (["run", "seed=0,1"], ["--multirun"]),
        (["run", "-cn", "nope"], ["nope"]),
        (["run", "-m", "--cfg", "job"], ["--cfg and --multirun cannot be combined"]),
        (["run", "-m", "seed=0,5", "optim.lr=abc"], ["optim.lr: a number"]),
        (
            ["report", "runz=a"],
            ["unknown key 'runz'; allowed here: against, hydra, out, pairs, runs, verb", "'runs'"],
        ),
        (["report", "runs=a", "pairs=maybe"], ["pairs: true or false is expected, got 'maybe'"]),
        (["report", "-m", "runs=a,b"], ["report is one request over all its folders"]),
        (["report"], ["not set: runs; add runs=<folder>"]),
        (["report", "runs=nowhere,a=b (c)"], ["no such folder: nowhere, a=b (c); give folders"]),
        (["run", "-m", "tracker=none,nine"], ["tracker=nine", "allowed: none, wandb"]),
    ],
)
def test_wrong_request_is_one_line_and_exit_2(
    inline: Inline, env: dict[str, str], words: list[str], parts: list[str]
):
    refused(inline(*words), *parts)
    assert not list(Path(env["PKT_OUTPUT_DIR"]).rglob("verb"))


@pytest.mark.parametrize(
    ("seed", "code", "text"), [(1, 1, "hub is out of reach"), (2, 2, "layer 9 is out of range")]
)
def test_failed_task_is_one_line(env: dict[str, str], seed: int, code: int, text: str):
    refused(pkt(env, "run", f"seed={seed}"), text, code=code)


def test_unforeseen_error_keeps_its_traceback(env: dict[str, str]):
    done = pkt(env, "run", "seed=3")
    refused(done, "unexpected ZeroDivisionError: division by zero", "error.log", code=1)
    (folder,) = run_dirs(env, "run")
    assert "Traceback" in (folder / "error.log").read_text()


@pytest.mark.parametrize("name", ["PKT_DEBUG", "HYDRA_FULL_ERROR"])
def test_debug_shows_the_traceback(env: dict[str, str], name: str):
    done = pkt(env | {name: "1"}, "run", "seed=3")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr


def test_interrupt_is_one_line_and_130(env: dict[str, str]):
    command = [sys.executable, "-c", FAKE, "run", "seed=4"]
    with subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a runner in the background hands down an ignored SIGINT, which a terminal would not
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "pkt: stopped; the same command resumes\n"


@pytest.mark.slow
def test_failed_jobs_do_not_stop_a_sweep(env: dict[str, str]):
    done = pkt(env, "run", "optim.lr=0.5", "-m", "seed=2,3,0")
    assert done.returncode == 2  # the first failed job's
    assert "done 0" in done.stdout
    assert "layer 9" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
    folders = run_dirs(env, "run")
    assert [folder.name for folder in folders] == ["0", "1", "2"]
    assert len({folder.parent for folder in folders}) == 1


def test_cfg_flags(inline: Inline, env: dict[str, str]):
    assert "lr: 3" in inline("run", "optim.lr=3", "--cfg", "job", "-p", "optim").stdout
    assert "checkpoint: null" in inline("eval", "--cfg", "job").stdout
    resolved = inline("run", "--cfg", "job", "--resolve").stdout
    assert f"output_dir: {env['PKT_OUTPUT_DIR']}" in resolved
    assert "semalign_joint" in inline("run", "--info", "defaults").stdout


def test_method_chooses_its_strategies_and_the_user_has_the_last_word(inline: Inline):
    assert "Critical" in inline("run", "method=semalign", "--cfg", "job", "-p", "mapping").stdout
    assert (
        "Depth" in inline("run", "method=semalign", "mapping=depth", "--cfg", "job", "-p", "mapping").stdout
    )


def test_experiment_overlays(inline: Inline, env: dict[str, str]):
    user = Path(env["PKT_CONFIG_DIR"])
    (user / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /method: semalign\n  - override /mapping: depth\n"
    (user / "experiment" / "mine.yaml").write_text(text + "optim:\n  lr: 0.125\n")
    shown = inline("run", "experiment=mine", "--cfg", "job").stdout
    assert "lr: 0.125" in shown
    assert "name: semalign\n" in shown
    assert "Depth" in shown
    assert "lr: 0.5" in inline("run", "experiment=mine", "optim.lr=0.5", "--cfg", "job", "-p", "optim").stdout
    swept = inline("run", "-m", "experiment=none,mine")
    assert swept.returncode == 0, swept.stderr
    assert len(run_dirs(env, "run")) == 2


def test_own_primary_config_and_folders(
    inline: Inline, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    user = Path(env["PKT_CONFIG_DIR"])
    (user / "mytransfer.yaml").write_text("defaults:\n  - transfer\n  - _self_\noptim:\n  lr: 0.25\n")
    assert "lr: 0.25" in inline("transfer", "-cn", "mytransfer", "--cfg", "job").stdout
    (user / "optim").mkdir()
    (user / "optim" / "nano.yaml").write_text("lr: 0.75\n")  # wins over the built-in file of that name
    assert "lr: 0.75" in inline("run", "optim=nano", "--cfg", "job", "-p", "optim").stdout
    extra = tmp_path / "extra"
    (extra / "optim").mkdir(parents=True)
    (extra / "optim" / "slow.yaml").write_text("lr: 0.0625\n")
    for words in (["-cd", str(extra)], [f"hydra.searchpath=[{extra}]"]):
        assert "lr: 0.0625" in inline("run", *words, "optim=slow", "--cfg", "job", "-p", "optim").stdout
    (tmp_path / "project" / "conf" / "optim").mkdir(parents=True)
    (tmp_path / "project" / "conf" / "optim" / "here.yaml").write_text("lr: 2.5\n")
    monkeypatch.chdir(tmp_path / "project")
    done = inline("run", "optim=here", "--cfg", "job", "-p", "optim")
    assert "lr: 2.5" in done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pkt tr", "transfer"),
        ("pkt transfer model=", "model=mine"),
        ("pkt eval opti", "optim."),
        ("pkt nope x", ""),
    ],
)
def test_completion(env: dict[str, str], line: str, expected: str):
    words = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "COMP_CWORD": "1"}
    done = pkt(env | words, "-sc", "query=bash")
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert done.stderr == ""


def test_completion_installs(env: dict[str, str]):
    assert "complete" in pkt(env, "-sc", "install=bash").stdout


def test_unwritable_output_is_one_line(env: dict[str, str], tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = pkt(env | {"PKT_OUTPUT_DIR": str(tmp_path / "file")}, "run")
    refused(done, "cannot write", "PKT_OUTPUT_DIR", code=1)


def test_the_main_process_alone_has_the_run_folder_and_talks(env: dict[str, str]):
    ranks = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    done = {number: pkt(env | ranks | {"RANK": number}, "run") for number in ("0", "1")}
    assert [own.returncode for own in done.values()] == [0, 0]
    assert len(run_dirs(env, "run")) == 1
    assert done["1"].stderr == ""
    wrong = pkt(env | ranks | {"RANK": "1"}, "run", "optim.lr=x")
    refused(wrong, "process 1: optim.lr: a number is expected")
    refused(pkt(env | ranks | {"RANK": "0"}, "run", "-m", "seed=0,1"), "a sweep is one process")


def test_run_dir_can_be_named(env: dict[str, str], tmp_path: Path):
    assert pkt(env | {"PKT_RUN_DIR": str(tmp_path / "mine")}, "run").returncode == 0
    assert (tmp_path / "mine" / "verb").is_file()


def test_repeated_main_in_one_process(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["pkt"])
    from pkt.cli import main

    for _ in range(2):
        assert main(["run", "--cfg", "job", "-p", "seed"]) == 0
        assert main(["run", "optim.lr=x"]) == 2
    assert "HYDRA_FULL_ERROR" not in os.environ
    assert capsys.readouterr().err.count("a number is expected") == 2
