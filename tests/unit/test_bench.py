"""The bench: both ways of every case find the same numbers, results survive a stop, the page says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import bench
from benches import measure
from benches.case import difference
from benches.page import drawing, table
from benches.scaling import AXES, scaled, slope
from benches.shape import SMALL, TINY
from pkt.errors import PktError
from textbook.steps import Step


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path))
    return tmp_path / "bench" / "tiny"


@pytest.mark.parametrize("name", bench.CASES)
def test_both_ways_find_the_same_numbers(name):
    found = measure.timed(bench.CASES[name], TINY, repeats=1, threads=1)
    assert found["difference"] <= found["allowed"] <= 0.1
    assert found["ratio"] == pytest.approx(found["seconds"]["textbook"][0] / found["seconds"]["ours"][0])


@pytest.mark.parametrize("name", ["v1_step", "joint_step"])
def test_a_repeated_call_goes_on_alike(name):
    """Steps are timed again and again: the second one of both ways is compared too."""
    case = bench.CASES[name]
    ours, textbook = case.ours(TINY), case.textbook(TINY)
    ours(), textbook()
    assert difference(ours(), textbook()) < case.error


def test_numbers_that_differ_are_refused():
    case = replace(bench.CASES["map"], textbook=lambda _: lambda: {"matrix": torch.ones(16, 24)})
    with pytest.raises(PktError, match=r"map: pkt and the textbook differ by .*, allowed are 0.001"):
        measure.timed(case, TINY, repeats=1, threads=1)
    with pytest.raises(ValueError, match=r"matrix: pkt has \(16, 24\), the textbook \(2,\)"):
        difference({"matrix": torch.ones(16, 24)}, {"matrix": torch.ones(2)})
    with pytest.raises(ValueError, match="pkt found"):
        difference({"a": torch.ones(1)}, {"b": torch.ones(1)})
    assert difference({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([1.0, 4.0])}) == 0.5


def test_a_wrong_target_shows_in_the_numbers(monkeypatch):
    case = bench.CASES["v1_step"]
    monkeypatch.setattr(Step, "_layers", lambda *_: torch.ones((), requires_grad=True))
    with pytest.raises(PktError, match="differ"):
        measure.timed(case, TINY, repeats=1, threads=1)


def test_a_stopped_command_goes_on_and_the_page_has_all_that_is_there(outputs, monkeypatch, capsys):
    words = ["--tiny", "--repeats", "2", "--no-memory", "--cases"]
    assert bench.main([*words, "map"]) == 0
    first = json.loads((outputs / "map.json").read_text())
    assert first["asked"] | {"code": None} == {
        "size": "tiny", "repeats": 2, "threads": 1, "memory": False, "code": None,
    }  # fmt: skip
    assert {way: len(seconds) for way, seconds in first["seconds"].items()} == {"ours": 2, "textbook": 2}
    real = bench.timed

    def stopped(case, *rest):
        if case.name == "capture":
            raise KeyboardInterrupt
        return real(case, *rest)

    monkeypatch.setattr(bench, "timed", stopped)
    assert bench.main([*words, "map,basis,capture"]) == 130
    assert "kept from an earlier run" in capsys.readouterr().out
    assert sorted(path.name for path in outputs.glob("*.json")) == ["basis.json", "map.json"]
    monkeypatch.setattr(bench, "timed", real)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX1024")
    assert bench.main([*words, "capture,scaling_tokens"]) == 0
    record = json.loads((outputs / "results" / "performance.json").read_text())
    assert list(record["cases"]) == ["map", "basis", "capture"]
    assert record["cases"]["map"] == first
    assert record["scaling"]["tokens"]["values"] == [32, 64, 128, 256]
    page = (outputs / "performance.md").read_text()
    assert page.count("not measured") == len(bench.CASES) - 3
    assert "| instructions that torch uses | AVX1024 |" in page
    assert "| tokens | `v1_step` | 32, 64, 128, 256 |" in page
    assert (outputs / "results" / "performance.png").stat().st_size > 10_000


def test_what_cannot_be_measured_here_says_why(outputs, monkeypatch):
    case = replace(bench.CASES["v1_step_bfloat16"], unavailable=lambda _: "no units for it")
    monkeypatch.setitem(bench.CASES, case.name, case)
    assert bench.main(["--tiny", "--cases", case.name]) == 0
    assert "| no units for it |" in (outputs / "performance.md").read_text()


def test_requests_that_are_refused(outputs, capsys):
    assert bench.main(["--tiny", "--cases", "map,v1_stp"]) == 2
    assert "unknown case 'v1_stp'" in (message := capsys.readouterr().err)
    assert "did you mean 'v1_step'?" in message
    with pytest.raises(SystemExit) as stop:
        bench.main(["--repeats", "0"])
    assert stop.value.code == 2


def test_an_aim_that_is_missed_is_marked():
    found = {
        "seconds": {"ours": [1.0, 2.0, 4.0], "textbook": [30.0, 22.0, 40.0]}, "ratio": 15.0, "difference": 1e-6,
        "allowed": 1e-3, "mb": {"ours": 500.0, "textbook": 1000.0},
    }  # fmt: skip
    row = table([bench.CASES["v1_step"]], {"v1_step": found}).splitlines()[-1]
    assert "| **15** (10 to 30) | 12 | **2** ✗ | 3 | 2, 30 | 500, 1000 | 3 |" in row
    assert "**11** ✗" in table([bench.CASES["v1_step"]], {"v1_step": found | {"ratio": 11.0}})


def test_slopes():
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)
    axis = replace(AXES[0], values=(8, 16))
    found = scaled(axis, bench.CASES, repeats=1, threads=1, base=TINY)
    for way, medians in found["medians"].items():
        assert found["slopes"][way] == pytest.approx(slope((8, 16), medians))
    assert len(drawing({"tokens": found, "depth": found}).figure.axes) == 2


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_an_axis_changes_its_size_and_keeps_pairs_at_their_depth(axis):
    for value in axis.values:
        shape = axis.at(SMALL, value)
        assert shape.opposite(shape.layer) <= shape.teacher_depth
        assert value in (shape.tokens, shape.vocabulary, shape.student_depth, shape.student_width, shape.rows)


@pytest.mark.slow  # two processes
def test_memory_is_that_of_a_process_of_its_own():
    shape = replace(TINY, vocabulary=4000, student_width=64, teacher_width=96, rows=8, tokens=64)
    found = measure.peaks(bench.CASES["joint_step"], shape, threads=1)
    logits = 8 * 64 * 4000 * 4 / measure.MB
    assert found["textbook"] > 2 * logits  # of both models
    assert found["ours"] < found["textbook"]
