"""The whole way through, on a tiny random pair: what is computed, what is reused, what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pkt.methods import workbench
from pkt.reporting.answers import read_answers


def lines(out: str, stage: str) -> list[str]:
    """The stage lines that the user saw."""
    return [line for line in out.splitlines() if line.startswith(stage)]


def checkpoint(outputs: Path) -> Path:
    (found,) = (outputs / "store" / "transfer").glob("*/model")
    return found


@pytest.mark.parametrize(
    "method",
    [
        "semalign_joint",
        pytest.param("semalign", marks=pytest.mark.slow),
        pytest.param("sft", marks=pytest.mark.slow),
    ],
)
def test_run_leaves_a_table_and_a_checkpoint_that_scores_the_same(pkt, tiny_request, method):
    result = pkt("run", f"method={method}", *tiny_request)
    assert result.code == 0, result.err
    assert "gap closed" in result.out
    folder = checkpoint(pkt.outputs)
    (scores_file,) = pkt.outputs.glob("runs/run/*/scores.json")
    scores = json.loads(scores_file.read_text())
    assert set(scores["scores"]) == {"teacher", "student", "transferred"}
    assert read_answers(scores | {"folder": str(scores_file.parent)}, "transferred")
    assert (scores_file.parent / scores["store"]).resolve() == (pkt.outputs / "store").resolve()
    card = (folder / "README.md").read_text()
    assert "gap closed" in card
    assert f"method={method}" in card
    if method != "sft":
        assert "layer pairs" in card
        assert list(pkt.outputs.glob("runs/run/*/pairing.png"))
    if method == "semalign":
        assert list(pkt.outputs.glob("runs/run/*/attribution.png"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"]
    assert not any("lora" in name for name, _ in model.named_parameters())
    again = pkt("eval", f"eval.checkpoint={folder}", f"method={method}", *tiny_request)
    assert again.code == 0, again.err
    (eval_file,) = pkt.outputs.glob("runs/eval/*/scores.json")
    assert json.loads(eval_file.read_text())["scores"]["transferred"] == scores["scores"]["transferred"]


def test_adapter_beside_the_model_gives_the_same_logits(pkt, tiny_request, pair):
    from peft import PeftModel

    assert pkt("transfer", "method=semalign", *tiny_request).code == 0
    folder = checkpoint(pkt.outputs)
    base = AutoModelForCausalLM.from_pretrained(pair["student"])
    adapted = PeftModel.from_pretrained(base, str(folder.parent / "adapter")).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        want, got = adapted(ids).logits, AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_another_learning_rate_reuses_extract_and_align_without_a_teacher(pkt, tiny_request, monkeypatch):
    assert pkt("transfer", "method=semalign", *tiny_request).code == 0

    def refuse(*_args: object) -> None:
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(workbench, "load_teacher", refuse)
    second = pkt("transfer", "method=semalign", "optim.lr=1e-3", *tiny_request)
    assert second.code == 0, second.err
    assert "reused" in lines(second.out, "extract")[0]
    assert "reused" in lines(second.out, "align")[0]
    assert "computed" in lines(second.out, "transfer")[0]
    third = pkt("transfer", "method=semalign", "optim.lr=1e-3", *tiny_request)
    assert "reused" in lines(third.out, "transfer")[0]


@pytest.mark.slow
def test_a_sweep_runs_the_teacher_once_per_distinct_extraction(pkt, tiny_request, monkeypatch):
    loads: list[int] = []
    original = workbench.load_teacher
    monkeypatch.setattr(workbench, "load_teacher", lambda *args: loads.append(1) or original(*args))
    swept = pkt(
        "transfer",
        "-m",
        "method=semalign",
        "mapping=critical,depth,interpolate",
        "optim.lr=1e-4,3e-4,1e-3",
        *tiny_request,
    )
    assert swept.code == 0, swept.err
    for stage, distinct in (("extract", 3), ("align", 3), ("transfer", 9)):
        states = [line.split()[1] for line in lines(swept.out, stage)]
        assert states.count("computed") == distinct, stage
        assert len(states) == 9
    assert len(loads) == 3


def test_teacher_and_student_are_scored_once(pkt, tiny_request):
    first = pkt("run", "method=sft", *tiny_request)
    second = pkt("run", "method=sft", "seed=1", *tiny_request)
    assert "computed" in lines(first.out, "eval teacher")[0]
    assert "reused" in lines(second.out, "eval teacher")[0]
    assert "reused" in lines(second.out, "eval student")[0]
    assert "computed" in lines(second.out, "eval transferred")[0]


def test_two_runs_with_one_seed_are_bitwise_equal(pkt, tiny_request):
    def weights() -> dict[str, torch.Tensor]:
        assert pkt("transfer", "method=semalign_joint", "refresh=[transfer]", *tiny_request).code == 0
        return load_file(checkpoint(pkt.outputs) / "model.safetensors")

    first, second = weights(), weights()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_final_bits(tmp_path, tiny_request):
    command = [sys.executable, "-m", "pkt", "transfer", "method=semalign_joint", *tiny_request]
    command += ["optim.epochs=60", "optim.save_every=0"]

    def environment(name: str) -> dict[str, str]:
        return {**os.environ, "PKT_OUTPUT_DIR": str(tmp_path / name), "OMP_NUM_THREADS": "1"}

    assert subprocess.run(command, env=environment("whole"), capture_output=True, check=False).returncode == 0
    training = tmp_path / "killed" / "store" / "transfer"  # folders of other stages come and go meanwhile
    with subprocess.Popen(
        command, env=environment("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 240
            while not list(training.glob("*.partial/snapshot/state.json")):
                assert process.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    assert not list((tmp_path / "killed" / "store" / "transfer").glob("*/manifest.json"))
    resumed = subprocess.run(command, env=environment("killed"), capture_output=True, check=False)
    assert resumed.returncode == 0, resumed.stderr.decode()
    whole = load_file(checkpoint(tmp_path / "whole") / "model.safetensors")
    killed = load_file(checkpoint(tmp_path / "killed") / "model.safetensors")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_outputs_say_what_they_are_unless_the_folder_is_somebody_elses(pkt, tiny_request):
    assert pkt("extract", *tiny_request).code == 0
    told = (pkt.outputs / "README.md").read_text(encoding="utf-8")
    assert "store/transfer/<key>/model" in told
    (pkt.outputs / "README.md").unlink()
    (pkt.outputs / "thesis.tex").write_text("mine")
    assert pkt("extract", *tiny_request).code == 0
    assert not (pkt.outputs / "README.md").exists()
