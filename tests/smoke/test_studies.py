"""Real jobs: other rows are other studies, random controls are drawn anew, and a reused training shows its losses."""

from __future__ import annotations

import json
import re
import shutil

import pytest


def sections(pkt, *runs) -> dict[str, list[list[str]]]:
    """Return title -> rows of the scores' table of a report over some folders."""
    assert pkt("report", f"runs={','.join(map(str, runs))}", f"out={pkt.outputs / 'page'}").code == 0
    text = (pkt.outputs / "page" / "report.md").read_text(encoding="utf-8")
    found = {}
    for part in text.split("\n## ")[1:]:
        rows = [line for line in part.split("### Gap")[0].splitlines() if line.startswith("| ")]
        found[part.partition("\n")[0]] = [
            [cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]
        ]
    return found


@pytest.mark.slow
def test_jobs_on_other_rows_get_a_table_each(pkt, tiny_request, pair, tmp_path):
    words = [word for word in tiny_request if not word.startswith(("eval.limit", "data.test"))]
    lines = (pair["root"] / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for name, chosen in (("one", lines[:8]), ("two", lines[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(chosen), encoding="utf-8")
    swept = f"data.test={tmp_path}/one.jsonl,{tmp_path}/two.jsonl"
    result = pkt("run", "-m", "method=identity", swept, "eval.limit=7,8", *words)
    assert result.code == 0, result.err
    found = sections(pkt, pkt.outputs / "runs")
    assert len(found) == 4
    assert all([row[0] for row in rows] == ["teacher", "identity", "student"] for rows in found.values())
    assert all(
        re.search(r"eval\.limit [78]", title) and re.search(r"(one|two)\.jsonl", title) for title in found
    )
    assert len(re.findall(r"seeds", result.out)) >= 4  # the console shows each table


@pytest.mark.slow
def test_a_random_map_is_drawn_anew_for_every_seed_of_one_arm(pkt, tiny_request):
    result = pkt(
        "run", "-m", "method=semalign_joint", "semantics=random", "mapping=random", "seed=0,1", *tiny_request
    )
    assert result.code == 0, result.err
    (rows,) = sections(pkt, pkt.outputs / "runs").values()
    assert [row[0] for row in rows] == ["teacher", "semalign_joint", "student"]
    assert rows[1][-1] == "2"  # seeds
    keys = {
        stage["key"]
        for file in pkt.outputs.glob("runs/run/multirun/*/*/scores.json")
        for stage in json.loads(file.read_text(encoding="utf-8"))["stages"]
        if stage["stage"] == "extract"
    }
    assert len(keys) == 2


@pytest.mark.slow
def test_a_reused_training_shows_its_losses(pkt, tiny_request):
    for _ in range(2):
        assert pkt("run", "method=sft", *tiny_request).code == 0
    first, again = sorted(pkt.outputs.glob("runs/run/*/metrics.jsonl"))
    steps = []
    for file in (first, again):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        steps.append([(line["step"], line["values"]) for line in lines if line["kind"] == "metrics"])
    assert steps[0] == steps[1] != []
    assert "training reused" not in (first.parent / "report.html").read_text(encoding="utf-8")
    assert "seed 0 (training reused)" in (again.parent / "report.html").read_text(encoding="utf-8")
    shutil.rmtree(again.parent)
