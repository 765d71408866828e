"""The three lines before a run say what the plan says, of every method, and no setting that nothing reads."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "told", "untold"),
    [
        (["method=sft"], "transfer (sft, 2 epochs, 8 rows each, lr 0.001)", "align"),
        pytest.param(
            ["method=sft", "optim.steps=3"],
            "transfer (sft, 3 steps, 8 rows each",
            "epochs",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["method=sft", "optim.tokens_per_batch=200"],
            "transfer (sft, 2 epochs, 200 tokens each",
            "8 rows",
            marks=pytest.mark.slow,
        ),
        (["method=identity"], "transfer (identity)", "epochs"),
    ],
)
def test_what_is_told_is_what_is_read(pkt, tiny_request, words, told, untold):
    done = pkt("run", *tiny_request, "optim.lr=1e-3", *words)
    assert done.code == 0, done.err
    line = next(line for line in done.err.splitlines() if line.startswith("stages "))
    assert told in line
    assert untold not in line
    again = pkt("run", *tiny_request, "optim.lr=1e-3", *words)
    assert next(line for line in again.err.splitlines() if line.startswith("stages ")).endswith(" reused")


def test_a_run_whose_folder_is_elsewhere_leaves_no_note_in_the_outputs(
    pkt, tiny_request, tmp_path, monkeypatch
):
    """The outputs may then be somebody else's, or on a disk that takes no writes."""
    monkeypatch.setenv("PKT_RUN_DIR", str(tmp_path / "mine"))
    assert pkt("run", *tiny_request, "method=sft").code == 0
    assert not (pkt.outputs / "README.md").exists()
