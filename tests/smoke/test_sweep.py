"""A sweep ends with one table over its jobs, also when a job fails."""

from __future__ import annotations

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
