"""What is the user's is never deleted or overwritten, and nothing is written outside the folders of the request."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from cases import mostly_slow

MISSING = "model.student.checkpoint=/no/such"


def contents(root: Path) -> dict[str, str]:
    """Every path below a folder, with a digest of its content."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "-"
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A working folder with somebody's files, which also lie where pkt would put its own."""
    desk = tmp_path / "desk"
    for name in (
        "thesis/a.tex",
        "thesis/.hydra/config.yaml",
        "thesis/config.yaml",
        "thesis/0/wandb/x",
        "notes.md",
    ):
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        (desk / name).write_text("precious", encoding="utf-8")
    (desk / "empty").mkdir()
    (desk / "link").symlink_to(desk / "thesis")
    monkeypatch.chdir(desk)
    monkeypatch.delenv("PKT_OUTPUT_DIR", raising=False)
    return desk


@pytest.mark.parametrize(
    "folder", ["thesis", "link", ".", "..", "thesis/0/..", "{desk}/thesis", "outputs", "outputs/store/x"]
)
@pytest.mark.parametrize(
    "way",
    mostly_slow(["PKT_RUN_DIR", "hydra.run.dir", "hydra.sweep.dir"], lambda way: way == "hydra.run.dir"),
)
def test_a_folder_of_the_users_is_refused(pkt, desk, monkeypatch, way, folder):
    monkeypatch.delenv("PKT_OUTPUT_DIR", raising=False)
    before, folder = contents(desk.parent), folder.format(desk=desk)
    if way == "PKT_RUN_DIR":
        monkeypatch.setenv(way, folder)
        words = ["run"]
    else:
        words = ["run", f"{way}={folder}", *(["-m", "seed=0,1"] if "sweep" in way else [])]
    result = pkt(*words, MISSING)
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert f"{way}={folder}" in result.err
    assert contents(desk.parent) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verb=../../../evil"], "verb: got '../../../evil'"),
        (["-m", "verb=../../evil,run"], "verb cannot be swept over"),
        (["-m", "output_dir=a,b"], "output_dir cannot be swept over"),
        (["-m", "seed=0,1", "hydra.sweep.subdir=../../x"], "hydra.sweep.subdir=../../x"),
        (["-m", "seed=0,1", "hydra.sweep.subdir=/x"], "hydra.sweep.subdir=/x"),
        (
            ["-m", "seed=0,1", "model.name=../../x", "hydra.sweep.subdir=${hydra.job.override_dirname}"],
            "subdir",
        ),
        (["hydra.output_subdir=../../x"], "hydra.output_subdir"),
        (["hydra.output_subdir=.."], "hydra.output_subdir"),
        (["hydra.job.name=../../x"], "hydra.job.name"),
        (["hydra.job.chdir=true"], "hydra.job.chdir"),
        (["output_dir="], "output_dir: the name of a folder is expected"),
        (["output_dir=' '"], "output_dir: the name of a folder is expected"),
        (["output_dir=/"], "root of the file system"),
        (["output_dir=/tmp/.."], "root of the file system"),
        (["output_dir='~/results'"], str(Path.home() / "results")),
        (["hydra.run.dir="], "hydra.run.dir is empty"),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(pkt, desk, words, said):
    before = contents(desk.parent)
    result = pkt("run", *words, MISSING)
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert said in result.err
    assert contents(desk.parent) == before


@pytest.mark.parametrize(
    ("verb", "place"),
    [("run", None), ("eval", "new/deep/er"), ("analyze", "empty"), ("transfer", "outputs/runs/mine")],
)
def test_a_refused_run_leaves_nothing_and_takes_nothing(pkt, desk, monkeypatch, verb, place):
    monkeypatch.delenv("PKT_OUTPUT_DIR", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    before = contents(desk)
    if place:
        monkeypatch.setenv("PKT_RUN_DIR", place)
    result = pkt(verb, MISSING, "tracker=none")
    assert result.code == 2, result.err
    assert contents(desk) == before


def test_a_run_folder_is_used_again_and_keeps_what_a_refusal_finds(pkt, desk, monkeypatch, tiny_request):
    monkeypatch.setenv("PKT_RUN_DIR", "mine")
    words = [*tiny_request, "method=identity", "eval.models=[student]"]
    assert pkt("eval", *words).code == 0
    (desk / "mine" / "notes.md").write_text("precious", encoding="utf-8")
    assert pkt("eval", *words).code == 0, "the same folder again"
    before = contents(desk / "mine")
    assert pkt("eval", *words, MISSING).code == 2
    after = contents(desk / "mine")
    assert before.keys() == after.keys()
    assert all(after[name] == before[name] for name in ("notes.md", "scores.json"))


def test_a_sweep_of_refused_jobs_takes_nothing(pkt, desk):
    before = contents(desk)
    assert pkt("run", "-m", "seed=0,1", MISSING, "tracker=none").code == 2
    assert {
        name: digest for name, digest in contents(desk).items() if not name.startswith("outputs")
    } == before


def test_jobs_that_fail_alike_say_so_once(pkt, desk):
    for again in range(2):  # another sweep tells it anew
        done = pkt("run", "-m", "benchmark=custom", f"seed={3 * again},{3 * again + 1},{3 * again + 2}")
        assert done.code == 2
        assert done.err.count("has no test rows") == 1
        assert done.err.count("pkt: as the job before") == 2


@pytest.mark.parametrize(
    "theirs",
    [pytest.param(f"paper.{end}", marks=pytest.mark.slow) for end in ("tex", "md", "jsonl")] + ["paper.html"],
)
def test_a_report_overwrites_only_reports(pkt, desk, theirs):
    from run_folders import leave_run

    leave_run(desk / "outputs", "sft", lift=0.5)
    (desk / theirs).write_text("precious", encoding="utf-8")
    result = pkt("report", "runs=outputs", "out=paper.html")
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert theirs in result.err
    assert (desk / theirs).read_text() == "precious"
    assert sorted(desk.glob("paper*")) == [desk / theirs]
    (desk / theirs).unlink()
    assert pkt("report", "runs=outputs", "out=paper.html").code == 0
    assert pkt("report", "runs=outputs", "out=paper.html").code == 0, "a report replaces a report"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["hydra.job_logging.handlers.file.filename={desk}/notes.md"],
            "log files are kept in the run's folder",
        ),
        (
            ["hydra.job_logging.handlers.file.filename=${{hydra.runtime.output_dir}}/../x"],
            "log files are kept",
        ),
        (["store_dir='~/x'"], "store_dir=~/x"),
        (["store_dir=/"], "store_dir=/ is the root of the file system"),
        (["hydra.run.dir='~/x'"], "hydra.run.dir=~/x"),
        (["-m", "seed=0,1", "model.name=../../../x", "hydra.sweep.subdir=${{model.name}}"], "subdir"),
        (["-m", "model.name=a,../../../x", "hydra.sweep.subdir=${{model.name}}"], "subdir"),
        (["-m", "model.name='../../x','b'", "hydra.sweep.subdir=j-${{model.name}}"], "subdir"),
        (["-m", "seed=0,1", "hydra.sweep.subdir=${{oc.env:ELSEWHERE}}"], "subdir"),
        (
            [
                "-m",
                "seed=0,1",
                "+tracker.password=two words",
                "hydra.sweep.subdir=${{hydra.job.override_dirname}}",
            ],
            "a credential would be in the name",
        ),
        (["-m", "seed=0,1", "model.name=/x", "hydra.sweep.subdir=${{model.name}}"], "subdir"),
    ],
)
def test_nothing_is_written_where_a_value_leads(pkt, desk, monkeypatch, words, said):
    monkeypatch.setenv("ELSEWHERE", str(desk.parent / "elsewhere"))
    before = contents(desk.parent)
    result = pkt("run", *(word.format(desk=desk) for word in words), "device=cuda:99", "tracker=none")
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert said in result.err
    assert contents(desk.parent) == before


@pytest.mark.parametrize(
    "place", ["store_dir=notes.md", "output_dir=held", "output_dir=loop", "output_dir=nowhere"]
)
def test_a_file_or_a_dead_link_in_the_place_of_a_folder_is_told_at_once(pkt, desk, place):
    (desk / "held").mkdir()
    (desk / "held" / "store").write_text("precious", encoding="utf-8")
    (desk / "loop").symlink_to(desk / "loop")
    (desk / "nowhere").symlink_to(desk / "gone")
    result = pkt("run", place, "tracker=none")
    assert (result.code, len(result.err.splitlines())) == (1, 1), result.err
    assert f"set {place.partition('=')[0]}" in result.err
    assert not (desk / "outputs").exists()


@pytest.mark.slow
def test_jobs_may_be_named_by_settings(pkt, desk):
    words = ["seed=0,1", "hydra.sweep.subdir=${method.name}_${seed}", "device=cuda:99", "tracker=none"]
    result = pkt("run", "-m", *words)
    assert "cuda:99" in result.err
    assert {path.name for path in desk.glob("outputs/runs/run/multirun/*/*") if path.is_dir()} >= {
        "semalign_joint_0",
        "semalign_joint_1",
    }


def test_a_report_takes_no_notes_for_its_own(pkt, desk):
    from pkt.reporting.page.write import write_run_page
    from run_folders import leave_run

    run = leave_run(desk / "outputs", "sft", lift=0.5)
    write_run_page(run)
    (run / "report.md").write_text("precious", encoding="utf-8")
    result = pkt("report", f"runs={run}")
    assert (result.code, "report.md is there" in result.err) == (2, True), result.err
    assert (run / "report.md").read_text() == "precious"
    (run / "report.md").unlink()
    assert pkt("report", f"runs={run}").code == 0
    assert pkt("report", f"runs={run}").code == 0, "a report replaces a report"


@pytest.mark.parametrize(
    "words",
    [["report", "runs=.", "hydra.mode=MULTIRUN"], ["run", "~hydra.callbacks.guard", "hydra.run.dir=."]],
)
def test_what_guards_a_request_stays(pkt, desk, words):
    before = contents(desk)
    result = pkt(*words)
    assert (result.code, len(result.err.splitlines())) == (2, 1), result.err
    assert contents(desk) == before


@pytest.mark.slow
@pytest.mark.parametrize("way", [["hydra.run.dir=mine"], ["-m", "seed=0,1", "hydra.sweep.dir=mine"]])
def test_two_processes_do_not_share_a_run_folder(pkt, desk, way):
    (desk / "mine").mkdir()
    handle = os.open(desk / "mine", os.O_RDONLY)
    before = contents(desk)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        result = pkt("run", *way, "device=cuda:99", "tracker=none")
    finally:
        os.close(handle)
    assert (result.code, len(result.err.splitlines())) == (1, 1), result.err
    assert "another process runs in" in result.err
    assert contents(desk) == before
    assert "cuda:99" in pkt("run", *way, "device=cuda:99", "tracker=none").err, "free again"
