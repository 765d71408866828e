"""No file of a run, a sweep or a report holds a credential of its request, W&B's files included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PASSWORD, TOKEN, VALUE = "pa55w0rd-in-url", "hf_aB3dE5gH7jK9mN1pQ3sT5vW7xY9z", "value-of-a-variable-9"


def holders(root: Path) -> list[str]:
    """Files whose bytes hold one of the credentials, or whose names do."""
    secrets = [secret.encode() for secret in (PASSWORD, TOKEN, VALUE)]
    files = [path for path in root.rglob("*") if path.is_file()]
    return [
        str(path) for path in files if any(one in path.read_bytes() + str(path).encode() for one in secrets)
    ]


@pytest.fixture
def words(tiny_request, monkeypatch) -> list[str]:
    """A request with a credential in each place where one may come from."""
    monkeypatch.setenv("MYLAB_SECRET", VALUE)
    monkeypatch.setenv("WANDB_MODE", "offline")
    given = [word for word in tiny_request if not word.startswith("tracker")]
    return [
        *given,
        "tracker=wandb",
        "tracker.mode=offline",
        f"tracker.tags=[{TOKEN},'https://me:{PASSWORD}@lab.org/x']",
        "tracker.group=${oc.env:MYLAB_SECRET}",
        f"benchmark.name='https://me:{PASSWORD}@lab.org/x?token={TOKEN}'",
        "model.name=${oc.env:MYLAB_SECRET}",
    ]


@pytest.mark.slow
def test_no_file_of_a_run_holds_a_credential(pkt, words, tmp_path):
    result = pkt("run", "method=sft", *words)
    assert result.code == 0, result.err
    assert (
        json.loads(next((pkt.outputs / "runs").rglob("scores.json")).read_text())["command"].count("<hidden>")
        >= 2
    )
    assert list(pkt.outputs.rglob("*.wandb")), "W&B has written its files"
    assert pkt("report", f"runs={pkt.outputs / 'runs'}", f"out={tmp_path / 'page'}").code == 0
    assert holders(tmp_path) == []


@pytest.mark.slow
def test_no_file_of_a_sweep_holds_a_credential(pkt, words, tmp_path):
    result = pkt("run", "-m", "seed=0,1", "method=identity", *words)
    assert result.code == 0, result.err
    assert list(pkt.outputs.rglob("multirun.yaml"))
    assert holders(tmp_path) == []


def test_no_trace_of_a_failure_holds_a_credential(pkt, words, tmp_path, monkeypatch):
    from pkt import pipeline

    def crash(*_):
        raise ZeroDivisionError(f"https://me:{PASSWORD}@lab.org/x {VALUE}")

    monkeypatch.setattr(pipeline, "_run_stages", crash)
    result = pkt("run", *words)
    assert result.code == 1
    assert "ZeroDivisionError" in next(pkt.outputs.rglob("error.log")).read_text()
    assert holders(tmp_path) == []
    assert not any(secret in result.err for secret in (PASSWORD, TOKEN, VALUE))
