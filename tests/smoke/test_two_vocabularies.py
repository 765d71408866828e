"""A teacher and a student that share no vocabulary: what runs, what is refused, and what the user is told."""

from __future__ import annotations

import json

import pytest

from tiny import tiny_model
from vocabularies import vocabulary

TRAINED = {
    "sft": (),
    "pissa": ("method.update.rank=4", "method.update.alpha=8"),
    "seqkd": ("answer.max_new_tokens=4",),
    "kd": (),
    "kd live": ("objective.terms.kl.teacher=live", "objective.terms.kl.top_k=null"),
    "hidden_kd": (),
    "hidden_kd beside": ("capture.mode=live",),
    "semalign": ("method.update.rank=4",),
    "semalign_joint": (),
    "semalign_joint refitted": ("semantics=ridge_refit", "optim.epochs=2"),
    "semalign_fisher": ("semantics=procrustes", "mapping=depth"),
    "semalign_geometry": ("semantics=logit_lstsq", "mapping=monotone"),
    "semalign_joint by cka": ("semantics=cosine", "mapping=cka"),
    "seeking": ("method.update.rank=4", "method.update.alpha=8"),
    "laten": ("method.rho=0.25", "method.steps=2", "method.align_rows=4"),
}
SLOW = set(TRAINED) - {"seqkd", "kd", "semalign_joint"}


@pytest.fixture(scope="session")
def strangers(pair, tmp_path_factory):
    """The tiny student, and a teacher with pieces instead of byte-level BPE."""
    folder = tmp_path_factory.mktemp("strangers")
    tokenizer = vocabulary("unigram", begins=True)
    tiny_model("llama", depth=5, width=48, seed=1, vocab=400, bos_token_id=2, eos_token_id=1).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def asked(tiny_request, strangers) -> list[str]:
    kept = [word for word in tiny_request if not word.startswith("model.teacher.checkpoint")]
    return [*kept, f"model.teacher.checkpoint={strangers}", "optim.epochs=1"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TRAINED]
)
def test_methods_run(pkt, asked, name):
    done = pkt("run", f"method={name.split()[0]}", *asked, *TRAINED[name])
    assert done.code == 0, done.err
    (scores,) = pkt.outputs.glob("runs/run/*/scores.json")
    found = json.loads(scores.read_text())
    assert found
    again = pkt("run", f"method={name.split()[0]}", *asked, *TRAINED[name])
    assert again.code == 0
    assert "computed" not in again.out
    if name in ("kd", "semalign_joint"):
        assert "have two vocabularies" in done.err
        assert "and are compared there" in done.err + done.out
