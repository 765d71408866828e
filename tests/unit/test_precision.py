"""16-bit numbers on a processor without units for them: refused to train in, told of in loading, never chosen."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from pkt import pipeline
from pkt.config import CheckpointSpec
from pkt.errors import RequestError
from pkt.models import load, precision
from pkt.models.load import dtype_name, load_model
from tiny import tiny_model

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
BF16 = torch.bfloat16


@pytest.fixture
def times(monkeypatch):
    """Says how long products take, in place of a clock."""
    seconds = {torch.float32: 1.0, BF16: 20.3, torch.float16: 19.0}
    monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
    precision.slowdown.cache_clear()
    yield seconds
    precision.slowdown.cache_clear()


def test_the_rule_is_what_was_measured(times):
    assert "takes 20 times as long as in float32" in precision.too_slow(BF16, CPU)
    assert precision.too_slow(torch.float16, CPU)
    assert precision.too_slow(torch.float32, CPU) is None
    assert precision.too_slow(BF16, GPU) is None
    precision.slowdown.cache_clear()
    times[BF16] = 0.6
    assert precision.too_slow(BF16, CPU) is None


def test_it_is_measured():
    precision.slowdown.cache_clear()
    assert precision.slowdown(BF16) > 0


def session(tmp_path, *, made=False, refresh=(), **settings):
    step = SimpleNamespace(stage="transfer", key="k", ingredients={"settings": settings})
    scored = SimpleNamespace(stage="eval", key="e", ingredients={})
    if made:
        (tmp_path / "k").mkdir()
    bench = SimpleNamespace(config=SimpleNamespace(refresh=list(refresh)), device=CPU)
    store = SimpleNamespace(path=lambda _stage, key: tmp_path / key)
    return SimpleNamespace(bench=bench, store=store, plan=[scored, step])


def test_training_in_it_is_refused_unless_the_result_is_there(times, tmp_path):
    asked = {"optim.precision": "bfloat16"}
    with pytest.raises(RequestError, match=r"20 times.*Set optim.precision=float32.*device=cuda.*AMX"):
        pipeline.check_precision(session(tmp_path, **asked))
    pipeline.check_precision(session(tmp_path, **{"optim.precision": "float32"}))
    pipeline.check_precision(session(tmp_path, made=True, **asked))
    with pytest.raises(RequestError, match="20 times"):
        pipeline.check_precision(session(tmp_path, refresh=["transfer"], **asked))
    precision.slowdown.cache_clear()
    times[BF16] = 0.6
    pipeline.check_precision(session(tmp_path, **asked))


def test_a_model_in_it_is_told_of_and_auto_does_not_choose_it(times, tmp_path, caplog):
    tiny_model("llama", depth=1).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger=load.__name__):
        load_model(CheckpointSpec(checkpoint=str(tmp_path), dtype="auto"))
        assert not caplog.records
        load_model(CheckpointSpec(checkpoint=str(tmp_path), dtype="bfloat16"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "loaded in bfloat16" in line
    assert "20 times" in line
    assert dtype_name("auto", "cpu") == "float32"
