"""Targets of the paper: jobs run as asked, and results show our numbers beside the published ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from paper import jobs
from paper.jobs import log_of, run_jobs
from paper.layers import similarity
from paper.plans import Job, Plan
from paper.published import PUBLISHED, ROWS, beside_table, published_table
from paper.results import check_place, result_of, write_results
from paper.targets import efficiency, table1
from pkt import __version__, cli
from pkt.errors import PktError
from pkt.reporting.study import Study
from reproduce import main


def scores(
    folder: Path, method: str, seed: int, value: float, *, model: str = "nano", task: str = "a"
) -> Path:
    """Leave what a finished job leaves."""

    def score(value: float) -> dict:
        one = {
            "task": task,
            "metric": "acc",
            "value": value,
            "stderr": 0.01,
            "n": 100,
            "higher_is_better": True,
        }
        return {task: one}

    folder.mkdir(parents=True)
    found = {
        "method": method,
        "seed": seed,
        "model": model,
        "benchmark": task,
        "split": "test",
        "command": f"pkt run method={method}",
        "settings": {"method": method},
        "scores": {"teacher": score(0.9), "student": score(0.4), "transferred": score(value)},
        "budget": {"trained_parameters": 1234, "seconds": 5.0 + seed, "stored_bytes": 3 * 2**20},
        "stages": [],
    }
    (folder / "scores.json").write_text(json.dumps(found), encoding="utf-8")
    return folder


def cells(markdown: str, name: str) -> list[str]:
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_table_shows_our_numbers_the_published_ones_and_where_they_come_from(tmp_path: Path):
    folders = [
        scores(tmp_path / "jobs" / f"{method}{seed}", method, seed, value + 0.02 * seed)
        for method, value in (("sft", 0.6), ("semalign", 0.5))
        for seed in (0, 1)
    ]
    plan = table1("nano", [0, 1])
    files = write_results(plan, *result_of(plan, folders, "make table1"), tmp_path / "out")
    text = files[0].read_text(encoding="utf-8")
    assert files[0] == tmp_path / "out" / "nano" / "table1.md"
    assert {file.suffix for file in files} == {".md", ".html", ".tex", ".jsonl"}
    assert cells(text, "sft")[0].startswith("61.0 ±")
    assert "not the paper's" in text
    assert cells(text, "seeking") == ["49.60 ± 0.4", "28.23 ± 1.2", "15.44 ± 2.8", "20.60 ± 1.8"]
    assert cells(text, "command") == ["make table1"]
    lines = [json.loads(line) for line in files[0].with_suffix(".jsonl").read_text().splitlines()]
    (ours,) = (line for line in lines if line["arm"] == "sft" and line["task"] == "a")
    assert ours["value"] == pytest.approx(0.61)
    assert all(
        (files[0].parent / name).is_file() for name in text.split("](")[1:] for name in [name.split(")")[0]]
    )


def test_costs_show_the_mean_and_where_seeds_differ_the_range(tmp_path: Path):
    folders = [scores(tmp_path / "jobs" / str(seed), "sft", seed, 0.6) for seed in (0, 1)]
    plan = efficiency("nano", [0, 1])
    page = write_results(plan, *result_of(plan, folders, "make efficiency"), tmp_path)[0]
    text = page.read_text(encoding="utf-8")
    row = cells(text, "sft")
    assert "6 [5, 6]" in row  # mean 5.5, a half to the even number
    assert "1,234" in row
    data = json.loads(page.with_suffix(".json").read_text())
    assert data["sft"]["seconds"] == [5.0, 6.0]
    assert "3" in row


def test_where_the_benchmarks_are_the_papers_both_numbers_stand_in_one_row(tmp_path: Path):
    pair = "wizardcoder-13b-to-7b"
    folder = scores(tmp_path / "j", "semalign", 0, 0.2, model=pair, task="humaneval")
    run = json.loads((folder / "scores.json").read_text())
    table = beside_table([Study.of([run])], "table2")
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows[f"{pair}: semalign"] == ("20.0 ± 1.0", "19.46")
    assert rows[f"{pair}: teacher"] == ("90.0 ± 1.0", "56.71")
    assert rows[f"{pair}: student"] == ("40.0 ± 1.0", "–")
    assert beside_table([Study.of([run | {"benchmark": "nano"}])], "figure2") is None


def test_published_numbers_are_the_papers():
    table = published_table("table1")
    assert table is not None
    assert published_table("ablations") is None
    # what the note on them says: every SemAlign score is the student's plus 0.70 of the teacher's lead
    of = PUBLISHED["table1"]
    for bench in ROWS:
        expected = of["student"][bench] + 0.70 * (of["teacher"][bench] - of["student"][bench])
        assert of["semalign"][bench] == pytest.approx(expected, abs=0.011)


def test_cka_is_averaged_over_seeds(tmp_path: Path):
    folders = []
    for seed, high in ((0, 0.8), (1, 0.6)):
        folder = tmp_path / f"cka_semalign_seed-{seed}"
        folder.mkdir()
        values = [[high, 0.1], [0.2, high], [0.1, 0.2], [0.3, 0.9]]
        matrices = [
            {"rows": "teacher", "columns": columns, "values": values, "tokens": 10, "same_depth": high}
            for columns in ("student", "transferred")
        ]
        data = {"interface": "block", "models": {}, "matrices": matrices, "widths": {}, "split": "validation"}
        (folder / "analysis.json").write_text(json.dumps({"parts": {"cka": {"data": data, "tables": []}}}))
        folders.append(folder)
    (table,), drawings, means = similarity("figure5", folders)
    # teacher layers 2 and 4 are at the depth of student layers 1 and 2
    assert table.rows[0] == ("semalign", "teacher", "student before", "0.700 ± 0.100", "0.200", "0.900")
    assert drawings[0].name == "figure5_semalign"
    assert means["semalign"]["matrices"][0]["values"][0] == pytest.approx([0.7, 0.1])


PLAN = Plan(
    target="table1",
    pair="nano",
    title="t",
    jobs=tuple(Job(name=name, verb=name, words=()) for name in ("verb", "version", "--version")),
)


def test_a_failed_job_does_not_keep_the_others_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(jobs, "IMPORTED", ())
    with pytest.raises(PktError, match=r"1 of 3 jobs failed.*goes on from here"):
        run_jobs(PLAN, tmp_path, [], at_once=2)
    logs = {job.name: log_of(tmp_path / "paper/nano/table1" / job.name).read_text() for job in PLAN.jobs}
    assert logs.pop("verb").startswith("pkt: unknown verb 'verb'")
    assert set(logs.values()) == {f"pkt {__version__}\n"}
    said = capsys.readouterr()
    assert sorted(said.out.split()) == sorted("refused verb done version done --version".split())
    assert "unknown verb" in said.err


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [False, True], ids=["foreground", "background"])
def test_stopping_the_target_stops_its_jobs(tmp_path: Path, deaf: bool):
    # what a script starts in its background ignores SIGINT, and so do its children
    code = (
        f"import signal; signal.signal(signal.SIGINT, signal.{'SIG_IGN' if deaf else 'default_int_handler'});"
    )
    code += (
        "import sys, reproduce, waiting; from paper import jobs; jobs.IMPORTED, jobs.answer = (), waiting.answer;"
        "reproduce.heed_termination(); sys.exit(reproduce.main(['figure2']))"
    )
    (tmp_path / "waiting.py").write_text(
        "import os, time\n"
        "def answer(words, log):\n"
        "    log.with_name('pid').write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PKT_OUTPUT_DIR": str(tmp_path / "outputs"), "PYTHONPATH": paths}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200  # it imports much, on a machine that may be busy
    while not (found := list(tmp_path.rglob("pid"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    child = int(found[0].read_text())
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on from here" in said
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_job_leaves_no_temporary_folder(tmp_path: Path, monkeypatch):
    """A fork leaves without the end of a process, at which libraries remove theirs."""
    named = tmp_path / "named"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def leaves_one(words: list[str]) -> int:
        named.write_text(tempfile.mkdtemp())
        return 3

    monkeypatch.setattr(cli, "main", leaves_one)
    process = multiprocessing.get_context("fork").Process(target=jobs.answer, args=([], tmp_path / "log"))
    process.start()
    process.join()
    assert process.exitcode == 3
    folder = Path(named.read_text())
    assert folder.is_relative_to(tmp_path)
    assert not folder.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"named", "log"}


def test_a_gpu_that_no_job_uses_does_not_forbid_forks(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(
        "multiprocessing.context.ForkServerContext.set_forkserver_preload",
        lambda _, names: given.append(names),
    )
    monkeypatch.setattr(jobs, "NO_FORKS", (str(tmp_path),))  # it exists
    for words in ((), ("device=cuda",), ("seed=1", "device=cpu")):
        jobs.processes(words)
    assert given == [[], [], [*jobs.IMPORTED]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel1"], "unknown target 'tabel1'.*table1"),
        (["table1", "--pair", "nanoo"], "unknown pair 'nanoo'.*nano"),
        (["table1", "--seeds", "a"], "--seeds: got 'a'"),
        (["table1", "--seeds", "0,0"], "--seeds: got '0,0'"),
        (["table1", "--jobs", "0"], "--jobs: got 0"),
        (["table1", "fast"], "got 'fast'; further words are key=value"),
    ],
)
def test_a_wrong_request_is_one_message(words: list[str], message: str, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(message, said)


@pytest.mark.parametrize("theirs", ["nano", "nano/table1.md", "nano/table1.json", "nano/table1.tex"])
def test_results_overwrite_only_results(theirs: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path / "outputs"))
    file = tmp_path / "out" / theirs
    file.parent.mkdir(parents=True)
    file.write_text("precious", encoding="utf-8")
    assert main(["table1", "--out", str(tmp_path / "out")]) == 2
    assert str(file) in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize("place", ["", "/", "~/x"])
def test_the_place_of_runs_is_checked(place: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PKT_OUTPUT_DIR", place)
    assert main(["table1"]) == 2
    assert "output_dir" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_results_of_an_earlier_target_are_replaced():
    results = Path(__file__).parents[2] / "docs" / "results"
    for page in results.glob("*/*.md"):
        check_place(Plan(target=page.stem, pair=page.parent.name, title="", jobs=()), results)


def test_the_requests_can_be_printed(capsys):
    assert main(["table1", "--print", "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pkt run method=seeking model=nano seed=3 benchmark=nano threads=1"
    assert len(lines) == 11
