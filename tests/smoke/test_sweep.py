"""A sweep ends with one table over its jobs, also when a job fails."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_a_sweep_ends_with_one_table_best_first(pkt, tiny_request):
    result = pkt("run", "-m", "method=identity,sft", "seed=0,1", *tiny_request)
    assert result.code == 0, result.err
    (written,) = pkt.outputs.glob("runs/run/multirun/*/table.md")
    lines = [line for line in written.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
    labels = [line.strip("|").split("|")[0].strip() for line in lines[1:]]
    assert labels[0] == "teacher"
    assert labels[-1] == "student"
    assert set(labels[1:-1]) == {"identity", "sft"}
    assert {"gap closed", "seeds", "trained", "steps", "student ktokens", "seconds", "peak MB"} <= set(
        columns
    )
    assert f"sweep      {written.parent}" in result.out
    assert f"report     {written.parent / 'report.html'}" in result.out
    last = result.out.rstrip().splitlines()[-2:]
    assert any(line.startswith("result     ") and "the best of" in line for line in last)
    assert {path.suffix for path in written.parent.glob("report.*")} == {".html", ".md", ".tex", ".jsonl"}
    assert not list(written.parent.glob("*/report.html"))
    seeds = {line.strip("|").split("|")[columns.index("seeds")].strip() for line in lines[2:-1]}
    assert seeds == {"2"}


@pytest.mark.slow
def test_a_job_that_fails_does_not_take_the_table_of_the_others_along(pkt, tiny_request):
    result = pkt("run", "-m", "method=identity,sft,kd", "objective=ce", *tiny_request)
    assert result.code == 2
    assert "method=kd does not go with this request" in result.err
    (written,) = pkt.outputs.glob("runs/run/multirun/*/table.md")
    assert "| identity |" in written.read_text(encoding="utf-8")


def test_a_single_run_has_no_table_of_a_sweep(pkt, tiny_request):
    assert pkt("run", "method=identity", *tiny_request).code == 0
    assert not list(pkt.outputs.rglob("multirun"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_in_processes_of_a_launcher_make_the_same_table(tmp_path, tiny_request, launcher: str):
    pytest.importorskip(
        f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher", reason="needs the extra launchers"
    )
    environment = {**os.environ, "PKT_OUTPUT_DIR": str(tmp_path), "PKT_LAUNCHER": launcher}
    command = [sys.executable, "-m", "pkt", "run", "-m", "method=identity,sft", *tiny_request]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("runs/run/multirun/*/table.md")
    table = written.read_text(encoding="utf-8")
    assert "| identity |" in table
    assert "| sft |" in table
