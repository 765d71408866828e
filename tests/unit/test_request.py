"""What a request may be made of: config files, folders, flags, settings, and the files that it names."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from pkt import environment, gate, searchpath
from pkt.cli import main
from pkt.config import OptimConfig
from pkt.config_files import MOST_BYTES, line_of, read_config, read_option
from pkt.errors import PktError, RequestError, together
from pkt.searchpath import option_files
from pkt.settings import Setting
from pkt.sweeps import no_best_trial
from pkt.tasks.custom import Custom
from pkt.tasks.find import find
from pkt.tasks.humaneval import HumanEval
from pkt.tasks.suite import Suite
from pkt.words import hydra_words


@pytest.fixture
def asked(monkeypatch, tmp_path, capfd):
    """Give words to the command line in an empty folder; returns exit code, output and messages."""
    for name in [name for name in os.environ if name.startswith(("PKT_", "HYDRA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path / "out"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pkt"])

    def ask(*words: str) -> tuple[int, str, str]:
        from hydra.core.hydra_config import HydraConfig

        capfd.readouterr()
        code = main(words)
        HydraConfig.instance().cfg = None
        return code, *capfd.readouterr()

    return ask


def written(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def bomb(width: int, levels: int) -> str:
    """Return aliases that stand for width ** levels values."""
    first = f"a0: &a0 [{','.join(['x'] * width)}]\n"
    return first + "".join(
        f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * width)}]\n" for n in range(levels - 1)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb:\n\tc: 2\n", "line 3.*indent with spaces"),
        ("a: 1\nlr: 1:30\n", "line 2.*another number"),
        ("steps: 010\n", "line 1.*another number"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1.*take the tag out"),
        ("a: 1\nb: 2\na: 3\n", "line 3.*duplicate key"),
        ("b: &b {c: *b}\n", "line 1: .b stands inside what it stands for"),
        (bomb(10, 7), "line 5: more than 50,000 values"),
        (bomb(2, 30), "more than 50,000 values"),
        ("a: " + "{b: " * 60, "more than 40 levels"),
        (b"a: 1\nb: \xe9\n", "line 2: no UTF-8"),
        (b"\x7fELF\x02\x01\x00\xff", "no UTF-8"),
        (b"a: \x00\n", "special characters"),
        ("- a\n", "a list is at its top"),
        ("true\n", "a mere value"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: [1\n", "line 2"),
        ("a: " + "x" * MOST_BYTES, "200,000"),
        ("a: ${\n", "keys with plain values"),
    ],
)
def test_a_config_file_that_is_none(tmp_path, text, said):
    file = written(tmp_path / "a.yaml", text)
    started = time.process_time()
    with pytest.raises(RequestError, match=said) as refused:
        read_config(file)
    assert str(refused.value).startswith(str(file))
    assert time.process_time() - started < 5


def test_config_files_that_are_right(tmp_path):
    assert read_config(written(tmp_path / "a.yaml", "a: &x [1, 2]\nb: *x\n")) == {"a": [1, 2], "b": [1, 2]}
    assert read_config(written(tmp_path / "a.yaml", "\ufeffa: é\n")) == {"a": "é"}
    assert read_config(written(tmp_path / "a.yaml", "# nothing\n")) == {}
    with pytest.raises(RequestError, match="no file of settings"):
        read_config(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(RequestError, match="no file of settings"):
        read_config(tmp_path / "pipe.yaml")
    assert line_of(written(tmp_path / "a.yaml", "a:\n  b: 1\n  - 'c' : 2\n"), "c") == 3


def test_an_option_stands_on_others_of_its_group(tmp_path):
    texts = {
        "ground": "a: 1\nb: 1\nc: 1\n",
        "middle": "defaults: [ground]\nb: 2\n",
        "top": "defaults:\n  - middle\n  - _self_\nc: 3\n",
        "beneath": "defaults: [_self_, ground]\nb: 4\nd: 4\n",
        "round": "defaults: [round]\n",
        "foreign": "defaults: [/term@terms.layer: cosine]\n",
    }
    files = {name: written(tmp_path / f"{name}.yaml", text) for name, text in texts.items()}
    assert read_option("top", files) == {"a": 1, "b": 2, "c": 3}
    assert read_option("beneath", files) == {"a": 1, "b": 1, "c": 1, "d": 4}
    for name in ("round", "foreign"):
        with pytest.raises(RequestError, match=rf"{name}\.yaml: defaults name .*an option of its own group"):
            read_option(name, files)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (3e-4, 5)),  # what the schema has
        ({"lr": None, "lr_by_method": {"default": 1.0, "sft": 2.0}}, (2.0, 5)),
        ({"lr": 0.5, "lr_by_method": {"sft": 2.0}}, (0.5, 5)),
        ({"lr": None, "lr_by_update": {"full": 3.0, "lora": 4.0}}, (4.0, 5)),
        ({"lr": None, "lr_by_method": {"default": 1.0, "sft": 2.0}, "lr_by_update": {"lora": 4.0}}, (2.0, 5)),
        ({"lr": None, "lr_by_method": {"default": 1.0}, "lr_by_update": {"lora": 4.0}}, (4.0, 5)),
        ({"lr": None, "lr_by_method": {"default": 1.0}, "lr_by_update": {"full": 4.0}}, (1.0, 5)),
        ({"epochs": None, "epochs_by_method": {"default": 4, "kd": 7}}, (3e-4, 4)),
        ({"epochs": 0, "epochs_by_method": {"sft": 7}}, (3e-4, 0)),
        ({"epochs": None, "steps": 10}, (3e-4, None)),
    ],
)
def test_a_method_has_its_own_rate_and_epochs_where_the_request_leaves_them_open(given, expected):
    from pkt.pipeline import settle_by_method

    optim = OptimConfig(**given)
    settle_by_method(optim, {"name": "sft", "update": {"kind": "lora"}})
    assert (optim.lr, optim.epochs) == expected
    assert (optim.lr_by_method, optim.epochs_by_method) == ({}, {})


def test_a_method_without_rate_or_epochs_is_refused(asked, tmp_path):
    for name in ("lr", "epochs"):
        words = ("optim=default", f"optim.{name}=null", f"+optim.{name}_by_method={{kd: 3}}")
        code, _, err = asked("transfer", "method=sft", *words)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert f"optim.{name} is null, and optim.{name}_by_method names neither sft nor default" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment=noen"], "did you mean 'none'"),
        (["debug=tiyn"], "did you mean 'tiny'"),
        (["method=[sft,kd]"], r"one option is expected.*`pkt run -m method=sft,kd`"),
        (["method=sft,kd"], r"`pkt run -m method=sft,kd`"),
        (["+model=nano"], "write model=nano, without"),
        (["model=nan"], "did you mean 'nano'"),
        (["-m", "seed=range(3,0)"], "a sweep over nothing"),
        (["-m", "method=glob(zzz*)"], "a sweep over nothing.*semalign"),
        (["-m", "method=sft,kdd"], "method=kdd: no such option.*did you mean 'kd'"),
        (["--mutlirun"], "did you mean '--multirun'"),
        (["--cfg", "jbo"], "did you mean 'job'"),
        (["seed=" + "[" * 3000], "brackets"),
        (["seed"], "seed=<value>"),
        (["-cn", "rnu"], "did you mean 'run'"),
    ],
)
def test_words_that_mean_nothing(asked, tmp_path, words, said):
    code, out, err = asked("run", *words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert re.search(said, line), line
    assert list(tmp_path.iterdir()) == []


def test_overlays_may_be_several(asked):
    code, out, err = asked("run", "experiment=[none,real]", "--cfg", "job", "-p", "optim")
    assert (code, err) == (0, "")
    assert "lr_by_method" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nteachr: {}\n", "line 2: unknown key 'model.teachr'; .*did you mean 'teacher'"),
        ("name: a\nteacher:\n  checkpont: b\n", "line 3: .*did you mean 'checkpoint'"),
        ("name: a\nchat_template: perhaps\n", "line 2: model.chat_template: true or false"),
        ("defaults: [mine]\n", "includes itself .model/mine -> model/mine."),
        ("defaults: [/model/mine]\n", "includes itself"),
        ("defaults: [nanno]\n", "model=nanno: no such option.*did you mean 'nano'"),
    ],
)
def test_a_mistake_in_the_users_own_pair_is_told_with_file_and_line(asked, tmp_path, text, said):
    file = written(tmp_path / "conf" / "model" / "mine.yaml", text)
    code, _, err = asked("run", "model=mine", "--cfg", "job")
    assert code == 2
    assert err.startswith(f"pkt: {file}")
    assert re.search(said, err), err


def test_a_foreign_conf_replaces_nothing_and_adds_options(asked, tmp_path, monkeypatch):
    for name in ("model/nano.yaml", "run.yaml", "_base.yaml", "hydra/job_logging/pkt.yaml", "schema.yaml"):
        written(tmp_path / "conf" / name, "hidden: 3\n")
    written(tmp_path / "conf" / "optim" / "mine.yaml", "lr: 0.5\n")
    code, out, err = asked("run", "optim=mine", "--cfg", "job")
    assert code == 0
    assert "package:pkt/assets/nano/teacher" in out
    assert "lr: 0.5" in out
    (line,) = err.splitlines()
    assert "4 files of names that pkt's own have" in line
    assert "PKT_CONFIG_DIR=conf" in line
    monkeypatch.setenv("PKT_CONFIG_DIR", "conf")
    code, _, err = asked("run", "--cfg", "job")
    assert code == 0
    assert err == ""
    assert searchpath.found_conf_dir() is None


@pytest.mark.parametrize("place", ["/nope", "file", "conf/model", "nothing"])
def test_config_folders_that_are_none(asked, tmp_path, monkeypatch, place):
    written(tmp_path / "file", "x")
    written(tmp_path / "conf" / "model" / "x.yaml", "name: x")
    (tmp_path / "nothing").mkdir()
    code, _, err = asked("run", "-cd", place, "--cfg", "job")
    assert code == 2
    assert f"--config-dir: {Path(place).absolute()}" in err
    monkeypatch.setenv("PKT_CONFIG_DIR", f"conf{os.pathsep}{place}")
    code, _, err = asked("run", "--cfg", "job")
    assert code == 2
    assert f"PKT_CONFIG_DIR: {Path(place).absolute()}" in err
    assert asked("--help")[0] == 0


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(asked, tmp_path):
    words = ["threads=1000000", "seed=-1", "device=gpu", "optim.lr=nan", "optim.batch_size=1" + "0" * 30]
    code, _, err = asked("run", *words, 'tracker.project="a\nb"', "optim.warmup=2")
    assert code == 2
    assert err.startswith("pkt: 7 things are wrong:")
    for part in (
        "threads: up to",
        "seed: a value from 0",
        "device: got 'gpu'",
        "optim.lr",
        "2147483647",
        r"'a\nb'",
    ):
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_paths_that_the_system_cannot_take(asked, tmp_path, monkeypatch):
    code, _, err = asked("run", "model.teacher.checkpoint='~nobodyhere/x'", "data.train='~nobodyhere/y'")
    assert code == 2
    assert err.count("nobody here has that home folder") == 2
    code, _, err = asked("run", f"data.train={'a' * 5000}")
    assert (code, err.count("\n")) == (1, 1)
    assert "a path is too long" in err
    code, _, err = asked("run", "model.name=\udce9")
    assert code == 2
    assert "no UTF-8 text" in err
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, err = asked("run")
    assert (code, err.count("\n")) == (1, 1)
    assert "working folder has been removed" in err


def test_an_optional_group_of_the_users_own_takes_no_typing_error(asked, tmp_path):
    written(tmp_path / "conf" / "mine.yaml", "defaults: [run, optional lab: null, _self_]\n")
    written(tmp_path / "conf" / "lab" / "fast.yaml", "# @package _global_\nseed: 7\n")
    assert "seed: 7" in asked("run", "-cn", "mine", "lab=fast", "--cfg", "job")[1]
    code, _, err = asked("run", "-cn", "mine", "lab=fats", "--cfg", "job")
    assert code == 2
    assert "did you mean 'fast'" in err


def test_references_that_lead_nowhere(asked, tmp_path):
    words = ["optim.lr=${optim.lr}", "seed=${sed}", "model.name=${nope:1}", "eval.limit=${oc.env:NO_SUCH}"]
    code, _, err = asked("run", *words)
    assert code == 2
    for part in ("4 things", "optim.lr=${optim.lr}: ", "did you mean 'seed'", "model.name=", "NO_SUCH"):
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_found_before_torch_is_imported(tmp_path):
    words = [
        "run",
        "model.teacher.checkpoint=/no/such",
        "data.train=/no/rows.jsonl",
        "benchmark.task_path=/no/tasks",
    ]
    code = (
        "import sys; from pkt.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    for part in (
        "4 things are wrong",
        "nothing at /no/such",
        "/no/rows.jsonl",
        "/no/tasks",
        "benchmark=custom",
    ):
        assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=[None, "1"], ids=["buffered", "unbuffered"])
def buffering(request, monkeypatch):
    """Let Python hold its output back, as it does for users, or not, as in many containers."""
    if request.param is None:
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    else:
        monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


@pytest.mark.usefixtures("buffering")
@pytest.mark.parametrize("words", [("--cfg", "job"), ("--help",)], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_not_an_error(tmp_path, words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pkt", "run", *words]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
@pytest.mark.usefixtures("buffering")
def test_a_full_disk_behind_the_output_is_named(tmp_path):
    for words in (["run", "--cfg", "job"], ["run", "--help"], ["--help"]):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "pkt", *words]
            done = subprocess.run(
                command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
            )
        assert done.returncode == 1
        assert done.stderr.startswith("pkt: cannot write to standard output: No space left")


def test_an_interrupt_that_a_library_turns_into_another_error_still_stops(asked, monkeypatch):
    def run_verb(cfg: object, run_dir: Path) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("Could not import module 'X'") from error

    fake = ModuleType("pkt.pipeline")
    fake.__dict__["run_verb"] = run_verb
    monkeypatch.setitem(sys.modules, "pkt.pipeline", fake)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, err = asked("run", "tracker=none")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, err) == (130, "pkt: stopped; the same command resumes\n")


def test_a_study_without_a_result():
    class Study:
        @property
        def best_trial(self) -> None:
            raise ValueError("Record does not exist.")

    with pytest.raises(ValueError, match="Record") as raised:
        Study().best_trial  # noqa: B018
    assert "no trial of the study ended with a number" in str(no_best_trial(raised.value))
    assert no_best_trial(ValueError("other")) is None


def test_numbers_have_bounds():
    assert Setting().broken(2**31) == "up to 2147483647"
    assert Setting(at_most=2**40).broken(2**31) is None
    assert Setting().broken(float("inf")) == "that is finite"
    assert Setting(at_least=0).broken(float("nan")) == "from 0"
    assert [Setting(at_least=1).broken(value) for value in (None, True, "x", 1)] == [None] * 4


def test_together():
    def no(text: str):
        raise RequestError(text)

    together([lambda: None])
    with pytest.raises(RequestError, match=r"^one$"):
        together([lambda: no("one"), lambda: None])
    with pytest.raises(RequestError, match="2 things are wrong:\n  one\n  two"):
        together([lambda: no("one"), lambda: no("two")])


def test_flags_come_first_with_their_values():
    assert hydra_words("run", ["seed=1", "--cfg=job", "-m"]) == ["--cfg", "job", "-m", "seed=1"]
    assert hydra_words("run", ["-i", "seed=1"]) == ["-i", "all", "seed=1"]


def test_environment_says_what_a_bug_report_needs_and_no_secret(asked, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretword")
    monkeypatch.setenv("WANDB_BASE_URL", "https://me:password1@host/x")
    monkeypatch.setenv("PKT_STUDY", "token hf_anothersecret1")
    monkeypatch.setattr(environment, "_sandbox", lambda: "x")
    monkeypatch.setitem(environment.PARTS, "torch", lambda: 1 / 0)
    code, out, err = asked("env", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert set(found) == {
        "pkt",
        "machine",
        "torch",
        "packages",
        "places",
        "config folders",
        "plugins",
        "sandbox",
        "variables",
    }
    assert found["torch"] == "cannot be told: ZeroDivisionError: division by zero"
    assert found["packages"]["transformers"][0].isdigit()
    assert "GB free" in found["places"]["output_dir"]
    assert found["variables"]["HF_TOKEN"] == "(set, not shown)"
    text = asked("env")[1]
    for shown in (out, text):
        assert not [word for word in ("verysecret", "password1", "anothersecret") if word in shown]
    assert asked("env", "--jsn")[0] == 2


def test_pkt_errors_pass(asked, monkeypatch):
    monkeypatch.setattr(searchpath, "builtin_conf_dir", lambda: (_ for _ in ()).throw(PktError("reinstall")))
    code, _, err = asked("run")
    assert (code, err) == (1, "pkt: reinstall\n")


def test_a_search_path_that_is_not_there_is_refused(capsys):
    assert main(["run", "hydra.searchpath=[file:///no/such]", "--cfg", "job"]) == 2
    assert "hydra.searchpath: /no/such is not there" in capsys.readouterr().err


def test_an_extra_is_named_by_what_it_installs_or_not_at_all(monkeypatch):
    """pkt is in no index, so its own name helps nobody; and it may be on the path without being installed."""
    from importlib.metadata import PackageNotFoundError

    from pkt import explain

    assert "hydra-optuna-sweeper" in explain._needed("sweep")
    assert "pkt-llm" not in explain._needed("launchers")

    def missing(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(explain, "requires", missing)
    assert explain._needed("sweep") == ""


@pytest.mark.parametrize(
    "drawing", [["semantics=random"], ["mapping=random", "mapping.count=null"], ["semantics=ridge"]]
)
def test_every_seed_that_follows_the_requests_may_be_as_large(asked, drawing):
    words = ["plan", "plan.flops=1e11", "optim.steps=1", "method=semalign_joint", *drawing]
    code, _, err = asked(*words, f"seed={2**63 - 1}")
    assert code == 0, err
    code, _, err = asked(*words, f"seed={2**63}")
    assert code == 2
    assert "seed: a value up to 9223372036854775807" in err


def test_the_gate_knows_which_rows_a_task_reads():
    """It may not import the classes; what it has in their place is held beside them here."""
    for name in option_files("task"):
        task = find(name)
        module = type(task).__module__.split(".")[2]
        read = set(gate.READ_BY.get(module, ()))
        assert ("benchmark.data_dir" in read) == isinstance(task, Suite), name
        assert ("benchmark.code_set" in read) == isinstance(task, HumanEval), name
        assert ("data.train" in read) == isinstance(task, Custom), name
