"""Training a model whose layers borrow keys and values: the cache of frozen layers is off, and changes nothing."""

from __future__ import annotations

import json

import pytest
import yaml
from safetensors.torch import load_file

from pkt.cli import main
from tiny import quirky, tiny_tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("method", ["semalign_joint", "semalign_geometry"])
def test_frozen_layers_are_not_cached_where_the_probe_says_so(tmp_path, monkeypatch, capsys, method):
    model, roles = quirky("keys and values of earlier layers")
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    side = {"checkpoint": str(tmp_path / "model"), "roles": roles}
    (tmp_path / "conf" / "model").mkdir(parents=True)
    pair = {"name": "own", "teacher": side, "student": side}
    (tmp_path / "conf" / "model" / "own.yaml").write_text(yaml.safe_dump(pair))
    rows = [{"id": str(k), "prompt": f"Ada has {k} coins.", "answer": f" coins {k % 7}"} for k in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("PKT_CONFIG_DIR", str(tmp_path / "conf"))
    monkeypatch.setattr("sys.argv", ["pkt"])
    words = f"model=own method={method} mapping=last benchmark=custom optim.epochs=1 tracker=none device=cpu"
    words += f" data.train={tmp_path / 'rows.jsonl'} data.test={tmp_path / 'rows.jsonl'}"
    trained = []
    for cached in ("true", "false"):
        monkeypatch.setenv("PKT_OUTPUT_DIR", str(tmp_path / cached))
        assert main(["transfer", *words.split(), f"method.cache_prefix={cached}"]) == 0
        (file,) = (tmp_path / cached / "store" / "transfer").glob("*/model/model.safetensors")
        trained.append(load_file(file))
    assert "layers 4, 5 give something else from cached states" in capsys.readouterr().err
    assert all((trained[0][name] == value).all() for name, value in trained[1].items())
