"""Reports read run folders and the store: what was changed there is refused or left out, never shown."""

from __future__ import annotations

import json

import pytest

from pkt.durable import sealed
from pkt.errors import RequestError
from pkt.manifest import write_manifest
from pkt.reporting.answers import read_answers
from pkt.reporting.page.analyses import read_analyses
from pkt.reporting.page.collect import collect
from pkt.reporting.runs import find_runs, load_runs
from run_folders import leave_run


@pytest.fixture
def folder(tmp_path):
    """A run whose scores are sealed, and whose artifacts have a manifest, as pkt leaves them."""
    folder = leave_run(tmp_path, "sft", lift=0.5)
    scores = folder / "scores.json"
    scores.write_text(sealed(json.loads(scores.read_text())))
    for artifact in (tmp_path / "store" / "eval").iterdir():
        (artifact / "manifest.json").unlink()
        write_manifest(artifact, "eval", artifact.name, {}, {})
    return folder


def test_scores_that_were_changed_are_refused(folder):
    (run,) = load_runs([folder])
    assert "checksum" not in run
    file = folder / "scores.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RequestError, match=r"scores\.json cannot be read \(its checksum does not fit"):
        load_runs([folder])


def test_answers_that_were_changed_are_left_out_with_a_line(folder, tmp_path, caplog):
    (run,) = load_runs([folder])
    assert read_answers(run, "teacher")
    file = tmp_path / "store" / "eval" / "teacher-fixed" / "scores.json"
    file.write_text(file.read_text().replace("Row 3 of", "Row 4 of"))
    assert read_answers(run, "teacher") == {}
    assert "pkt store verify" in caplog.text


@pytest.mark.parametrize(
    "text", ["[]", "{", sealed({"parts": {}}).replace("{}", '{"cka": 1}'), "[" * 100_000]
)
def test_an_analysis_that_was_changed_is_refused(tmp_path, text):
    (tmp_path / "analysis.json").write_text(sealed({"parts": {}}))
    assert [analysis.parts for analysis in read_analyses([tmp_path])] == [{}]
    (tmp_path / "analysis.json").write_text(text)
    with pytest.raises(RequestError, match=r"analysis\.json cannot be read"):
        read_analyses([tmp_path])


def test_a_request_beside_an_analysis_that_cannot_be_read_is_told(tmp_path, caplog):
    (tmp_path / "analysis.json").write_text(sealed({"parts": {}}))
    (tmp_path / "config.yaml").write_text("a: [")
    assert [analysis.asked for analysis in read_analyses([tmp_path])] == [{}]
    assert "config.yaml cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scores", []),
        ("scores", {"transferred": 3}),
        ("scores", {"transferred": {"nano_math": {"value": 0.5}}}),
        ("settings", None),
        ("stages", [3]),
        ("stages", [{}]),
        ("seed", "x"),
        ("split", None),
        ("study", 3),
        ("arm", [1]),
        ("store", None),
        ("budget", None),
        ("layers", {"teacher": 3}),
        ("notes", 3),
    ],
)
def test_scores_of_another_form_are_left_out_by_name(tmp_path, name, value):
    leave_run(tmp_path, "sft", lift=0.5)
    file = leave_run(tmp_path, "kd", lift=0.5) / "scores.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    found = find_runs([tmp_path / "runs"])
    assert [run["method"] for run in found.runs] == ["sft"]
    assert len(found.left_out) == 1
    assert f"its {name} cannot be read" in found.left_out[0]


def test_a_score_that_was_kept_as_null_has_no_answers(tmp_path):
    folder = leave_run(tmp_path, "sft", lift=0.5)
    content = json.loads((folder / "scores.json").read_text())
    content["scores"]["transferred"]["nano_math"] |= {"value": None, "stderr": None}
    content["budget"]["seconds"] = None
    (folder / "scores.json").write_text(json.dumps(content))
    table = collect(load_runs([folder])).sections[0].table
    assert next(row for row in table.rows if row[0] == "sft")[1] == "nan"


@pytest.mark.parametrize("meta", [None, [], {"provenance": None}, {"provenance": [1]}])
def test_a_page_passes_by_manifests_and_lines_of_metrics_of_another_form(tmp_path, meta):
    folder = leave_run(tmp_path, "sft", lift=0.5)
    for file in tmp_path.glob("store/*/*/manifest.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"meta": meta}))
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"kind": "metrics"}\n{"kind": "metrics", "step": 1, "values": null}\n{"kind": 3}\n')
        lines.write('{"kind": "table", "name": 3}\n{"kind": "table", "name": "align/x", "columns": []}\n')
    topics = {topic.name: topic for topic in collect(load_runs([folder])).sections[0].topics}
    assert topics["losses"].drawings
    assert [table.title for table in topics["layers"].tables] == ["quality"]
