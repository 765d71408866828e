"""`pkt analyze` through the real command line."""

from __future__ import annotations

import json

import pytest

from pkt.attribution import REDUCTIONS
from pkt.methods import workbench
from pkt.reporting.layer_figures import FIGURES
from tiny import tiny_model, tiny_tokenizer

PARTS = ("resolution", "cka", "attribution", "maps")


def states(out: str, stage: str) -> list[str]:
    return [line.removeprefix(stage).split()[0] for line in out.splitlines() if line.startswith(stage)]


def analysis(outputs):
    (*_, newest) = sorted(outputs.glob("runs/analyze/*/analysis.json"))
    return json.loads(newest.read_text()), newest.parent


@pytest.mark.slow
def test_every_part_is_kept_and_reused(pkt, tiny_request, monkeypatch):
    first = pkt("analyze", *tiny_request)
    assert first.code == 0, first.err
    assert "resolution of semantics" in first.out
    found, folder = analysis(pkt.outputs)
    assert set(found["parts"]) == set(PARTS)
    for part in PARTS:
        assert states(first.out, f"analyze {part}") == ["computed"]
        data = found["parts"][part]["data"]
        assert data["rows"] == 4
        for drawing in FIGURES[part](data):
            assert (folder / f"{drawing.name}.png").is_file()
        for table in found["parts"][part]["tables"]:
            assert set(table) == {"title", "columns", "rows"}
    assert {(m["rows"], m["columns"]) for m in found["parts"]["cka"]["data"]["matrices"]} >= {
        ("student", "transferred"),
        ("teacher", "transferred"),
    }
    assert set(found["parts"]["maps"]["data"]["maps"]) >= {"cosine", "ridge", "random"}
    tracked = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["name"] for line in tracked if line["kind"] == "figure"} >= {
        "analyze/maps",
        "analyze/resolution",
    }

    def refuse(*_args: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(workbench, "load_teacher", refuse)
    monkeypatch.setattr(workbench, "load_student", refuse)
    second = pkt("analyze", *tiny_request)
    assert second.code == 0, second.err
    assert "computed" not in second.out
    assert analysis(pkt.outputs)[0] == found


@pytest.mark.slow
def test_parts_by_name_depend_on_what_they_read(pkt, tiny_request):
    one = pkt("analyze", "resolution", *tiny_request)
    assert one.code == 0, one.err
    assert set(analysis(pkt.outputs)[0]["parts"]) == {"resolution"}
    assert not states(one.out, "transfer")
    again = pkt("analyze", "resolution", "optim.lr=0.5", "analyze.maps=[ridge]", *tiny_request)
    assert states(again.out, "analyze resolution") == ["reused"]
    other = pkt("analyze", "resolution", "analyze.interface=mlp", *tiny_request)
    assert states(other.out, "analyze resolution") == ["computed"]
    fewer = pkt(
        "analyze", *tiny_request, "analyze.rows=1", "resolution,cka", "analyze.models=[teacher,student]"
    )
    assert fewer.code == 0, fewer.err
    assert not states(fewer.out, "transfer")
    found, _ = analysis(pkt.outputs)
    assert list(found["parts"]) == ["resolution", "cka"]
    assert found["parts"]["resolution"]["data"]["rows"] == 1
    pairs = [(matrix["rows"], matrix["columns"]) for matrix in found["parts"]["cka"]["data"]["matrices"]]
    assert pairs == [("student", "student"), ("teacher", "student")]
    assert (
        found["parts"]["resolution"]["data"]["models"]["teacher"]["bases"]["output"]["cosine_stderr"] is None
    )


def test_a_named_checkpoint_is_analysed_without_training(pkt, tiny_request, pair):
    words = ("attribution,cka", f"eval.checkpoint={pair['student']}", "analyze.models=[student,transferred]")
    result = pkt("analyze", *words, *tiny_request)
    assert result.code == 0, result.err
    assert not states(result.out, "transfer")
    found = analysis(pkt.outputs)[0]["parts"]
    named = {(m["rows"], m["columns"]): m["values"] for m in found["cka"]["data"]["matrices"]}
    for row, same in zip(named["student", "transferred"], named["student", "student"], strict=True):
        assert row == pytest.approx(same)
    assert found["attribution"]["data"]["kept"]["mlp"] == pytest.approx(dict.fromkeys(REDUCTIONS, 1.0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "no part 'nonsense'; allowed: resolution, cka, attribution, maps"),
        (["resolutoin"], "did you mean 'resolution'?"),
        (["analyze.parts=[]"], "analyze.parts is empty"),
        (["maps", "analyze.split=align"], "no map flatters itself"),
        (["maps", "analyze.models=[student]"], "the part maps reads teacher and student"),
        (["cka", "analyze.models=[teacher]"], "the part cka reads student or transferred"),
        (["maps", "analyze.maps=[rigde]"], "did you mean 'ridge'?"),
        (["analyze.split=test"], "allowed: extract, align, train, validation"),
        (["cka", "eval.checkpoint=nowhere"], "no model folder there"),
    ],
)
def test_wrong_requests_get_one_message_and_leave_nothing(pkt, tiny_request, words, message):
    result = pkt("analyze", *tiny_request, *words)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not list(pkt.outputs.glob("store/analyze/*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "dtype"), [("qwen3", "float32"), ("gemma3_text", "bfloat16"), ("gpt2", "float32")]
)
def test_other_families_tied_heads_padding_and_a_wider_student(pkt, tiny_request, tmp_path, family, dtype):
    sizes = {
        "teacher": {"width": 32, "depth": 3, "vocab": 328},
        "student": {"width": 48, "depth": 2, "vocab": 336},
    }
    words = []
    for seed, (role, changes) in enumerate(sizes.items()):
        tiny_model(family, seed=seed, tied=True, **changes).save_pretrained(tmp_path / role)
        tiny_tokenizer().save_pretrained(tmp_path / role)
        words += [f"model.{role}.checkpoint={tmp_path / role}", f"model.{role}.dtype={dtype}"]
    result = pkt("analyze", *tiny_request, *words, "method=kd", "analyze.positions=answer")
    assert result.code == 0, result.err
    found, _ = analysis(pkt.outputs)
    assert set(found["parts"]) == set(PARTS)
    assert found["parts"]["resolution"]["data"]["models"]["student"]["bases"]["output"]["rank"] <= 48
