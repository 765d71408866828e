"""pkt diff: what sets two runs apart, in settings, keys, scores on the same rows, and rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from run_folders import leave_run


def folder_of(path: Path) -> str:
    return str(path if path.is_dir() else path.parent)


def test_two_methods_are_compared_row_by_row(pkt, tmp_path):
    first, second = (
        folder_of(leave_run(tmp_path, name, lift=lift)) for name, lift in (("sft", 0.1), ("kd", 0.9))
    )
    done = pkt("diff", first, second)
    assert done.code == 0, done.err
    assert "method │ sft" in done.out
    assert "eval transferred" in done.out
    line = next(line for line in done.out.splitlines() if "nano_math" in line and "±" in line)
    assert "+" in line.split("│")[4]
    assert "[" in line.split("│")[4]
    mean = next(line for line in done.out.splitlines() if line.startswith("│ mean"))
    assert re.search(r"\+\d+\.\d \[\+", mean.split("│")[4])
    assert "rows that only B got right" in done.out
    back = pkt("diff", second, first)
    assert (
        "-" in next(one for one in back.out.splitlines() if "nano_math" in one and "±" in one).split("│")[4]
    )


def test_a_run_differs_in_nothing_from_itself(pkt, tmp_path):
    folder = folder_of(leave_run(tmp_path, "kd", lift=0.5))
    done = pkt("diff", folder, folder)
    assert done.code == 0, done.err
    assert "settings: none differ" in done.out
    assert "cost: none differ" in done.out
    assert "results of stages: none differ" in done.out
    assert "only B" not in done.out


def test_settings_are_told_as_the_command_line_has_them_and_costs_as_tables_do(pkt, tmp_path):
    sides = []
    for lift, choice, lr in ((0.5, "random", None), (0.6, "depth", 0.1)):
        settings = {"method": "kd", "mapping._target_": choice.title(), "optim.lr": lr}
        spent = {"student_forward_tokens": 10_000_000 * lift}
        choices = {"mapping": choice}
        folder = leave_run(
            tmp_path / choice, "kd", lift=lift, settings=settings, choices=choices, budget=spent
        )
        sides.append(str(folder))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in pkt("diff", *sides).out.splitlines()]
    assert ["mapping", "random", "depth"] in rows
    assert ["optim.lr", "null", "0.1"] in rows
    assert ["student ktokens", "5,000", "6,000"] in rows


@pytest.mark.slow
def test_why_a_result_is_another_one_is_told_of_real_runs(pkt, tiny_request):
    for rate in ("1e-3", "2e-3"):
        assert pkt("run", *tiny_request, "method=sft", f"optim.lr={rate}").code == 0
    first, second = sorted(str(folder) for folder in pkt.outputs.glob("runs/run/*"))
    done = pkt("diff", first, second)
    assert done.code == 0, done.err
    assert "optim.lr 0.001 -> 0.002" in done.out
    assert "eval teacher" not in done.out  # the same result


def test_other_rows_are_not_compared(pkt, tmp_path):
    first, second = (Path(folder_of(leave_run(tmp_path, name, lift=0.5))) for name in ("sft", "kd"))
    for file in (tmp_path / "store" / "eval").glob("transferred-kd-0/scores.json"):
        content = json.loads(file.read_text())
        for rows in content["samples"].values():
            for row in rows:
                row["target"] += " x"
        file.write_text(json.dumps(content))
    done = pkt("diff", str(first), str(second))
    assert done.code == 0, done.err
    assert "not the same rows" in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "two folders"),
        (["a"], "got 1"),
        (["nowhere", "nowhere"], "no folder nowhere"),
        ([".", "."], "run `pkt run`"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(pkt, words, told):
    done = pkt("diff", *words)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert told in done.err
