"""`pkt doctor`, called as the command line calls it: known, declared and broken pairs."""

from __future__ import annotations

import json

import pytest
import yaml

from pkt.cli import main
from tiny import quirky, tiny_model, tiny_tokenizer


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """Runs the command on a teacher saved in a folder and a student cut from it; returns code, output, errors."""
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("PKT_CONFIG_DIR", str(tmp_path / "conf"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pkt"])

    def run(model, roles=None, *words, tokenizer=None):
        model.save_pretrained(tmp_path / "teacher")
        (tokenizer or tiny_tokenizer()).save_pretrained(tmp_path / "teacher")
        pair = {
            "name": "own",
            "teacher": {"checkpoint": str(tmp_path / "teacher"), "roles": roles or {}},
            "student": {"init": "prune", "layers": [1, 3]},
        }
        (tmp_path / "conf" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / "model" / "own.yaml").write_text(yaml.safe_dump(pair))
        code = main(["doctor", "model=own", "device=cpu", *words])
        return code, *capsys.readouterr()

    return run


def shown(text: str) -> list[tuple[str, str]]:
    """The first two columns of the tables."""
    rows = [line.split("│")[1:3] for line in text.splitlines() if line.startswith("│")]
    return [(name.strip(), state.strip()) for name, state in rows]


def test_a_known_pair_is_well_and_what_was_found_is_kept(doctor, tmp_path):
    code, out, _ = doctor(tiny_model("llama", depth=4))
    assert code == 0
    assert out.endswith("all is well\n")
    names = [name for name, _ in shown(out)]
    assert names.count("logits") == names.count("identity") == 2
    assert {"vocabulary", "cached", "merged", "padding rows", "eos_token"} < set(names)
    assert {state for name, state in shown(out) if name not in names[-8:]} == {"ok"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conf", "out", "teacher"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["runs", "store"]
    (written,) = (tmp_path / "out" / "runs" / "doctor").glob("*/doctor.json")
    found = json.loads(written.read_text())
    assert [check["state"] for checks in found.values() for check in checks] == ["ok"] * 35
    assert found["teacher"][-1]["name"] == "identity"
    kept = [json.loads(p.read_text()) for p in (tmp_path / "out/store/probes").glob("*.json")]
    assert [probe["model_type"] for probe in kept] == ["llama", "llama"]


def test_declared_roles_count_and_a_missing_feature_is_no_fault(doctor):
    code, out, _ = doctor(*quirky("residual inside both sublayers"))
    assert code == 0
    assert shown(out).count(("mlp", "off")) == 2
    assert "mlp_out=mlp.dense_4h_to_h would be" in out


@pytest.mark.slow
def test_a_tokenizer_with_more_tokens_than_rows_is_wrong(doctor):
    code, out, err = doctor(tiny_model("llama", vocab=300, depth=3), tokenizer=tiny_tokenizer(320))
    assert code == 1
    assert ("tokens", "wrong") in shown(out)
    assert "teacher tokens: 20 token ids of its tokenizer have no row" in err


@pytest.mark.slow
def test_a_pair_without_a_common_vocabulary_is_told(doctor, tmp_path):
    tiny_model("llama", depth=2, vocab=280).save_pretrained(tmp_path / "other")
    tiny_tokenizer(280).save_pretrained(tmp_path / "other")
    words = (
        f"model.student.checkpoint={tmp_path / 'other'}",
        "model.student.init=load",
        "model.student.layers=null",
    )
    code, out, err = doctor(tiny_model("llama", depth=3), None, *words)
    assert code == 0
    assert ("vocabulary", "wrong") not in shown(out)
    assert "have two vocabularies" in out + err


@pytest.mark.slow
def test_a_student_whose_answers_cannot_end_is_wrong(doctor):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    code, _, err = doctor(tiny_model("llama", depth=3), tokenizer=tokenizer)
    assert code == 1
    assert "pair ends: the student's tokenizer has no EOS token" in err
