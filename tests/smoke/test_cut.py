"""The command line cuts students: importance is measured once for all sizes, and a saved cut is a student too."""

from __future__ import annotations

import json

import pytest

from pkt.methods import workbench

CUT = ["model.student.init=prune", "model.student.checkpoint=null"]
SHORT = ["tracker=none", "threads=1", "optim.epochs=1"]


def settings(tiny_request: list[str]) -> list[str]:
    return [word for word in tiny_request if not word.startswith("model.student.checkpoint")] + CUT + SHORT


@pytest.mark.slow
def test_sizes_and_methods_share_what_was_measured(pkt, tiny_request, monkeypatch):
    own, asked = settings(tiny_request), []
    original = workbench.measure
    monkeypatch.setattr(workbench, "measure", lambda what, *args: asked.append(what) or original(what, *args))
    half = ["model.student.cut.layers=0.5", "model.student.cut.heads=2", "model.student.cut.hidden=24"]
    first = pkt("transfer", "experiment=cut", *half, *own)
    assert first.code == 0, first.err
    assert asked == ["residual", "heads", "hidden"]
    other = pkt("transfer", "method=sft", "objective=ce", "model.student.cut.layers=2", *own)
    assert other.code == 0, other.err
    assert asked == ["residual", "heads", "hidden"]
    (folder,) = (
        path.parent for path in pkt.outputs.glob("store/transfer/*/model/config.json") if _wide(path, 24)
    )
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_hidden_layers"], config["head_dim"], len(config["pkt_cut"]["hidden"])) == (3, 12, 24)
    loaded = [word for word in own if word not in CUT] + [f"model.student.checkpoint={folder}"]
    again = pkt("align", "experiment=cut", *loaded)  # a saved student knows what it was cut from
    assert again.code == 0, again.err


def _wide(config, width: int) -> bool:
    return json.loads(config.read_text())["hidden_size"] == width


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["model.student.cut.layers=2"],
            "model.student.init=load loads a checkpoint: set model.student.init=prune",
        ),
        (CUT, "init=prune says nothing of what stays of the teacher"),
        (["model.teacher.cut.mlp=4"], "a teacher is always whole"),
        ([*CUT, "model.student.cut.layers=2", "model.student.cut.every=2"], "each say which layers stay"),
        (
            [*CUT, "model.student.cut.every=2", "model.student.layers=[1]"],
            "model.student.layers each say which",
        ),
        ([*CUT, "model.student.cut.mlp=1.5"], "a whole number, or a share of the teacher's below 1"),
        ([*CUT, "model.student.cut.mlp=400"], "cut.mlp=400: the teacher has 96"),
        ([*CUT, "model.student.cut.heads=3"], "2 query heads of the teacher share a key-value head"),
        ([*CUT, "model.student.cut.hidden=0"], "a value above 0 is expected"),
        (["semantics=identity"], "the teacher's have 48 channels, the student's 32, which were not kept"),
        (["mapping=cut"], "mapping=cut pairs the layers of a student that was cut"),
    ],
)
def test_cuts_that_make_no_sense_are_refused_before_anything_is_written(pkt, tiny_request, words, says):
    own = [
        word
        for word in tiny_request
        if not (set(CUT) & set(words) and word.startswith("model.student.check"))
    ]
    result = pkt("transfer", *own, *words, "tracker=none")
    assert result.code == 2
    assert says in result.err
    assert not list(pkt.outputs.rglob("*.safetensors")) if pkt.outputs.exists() else True


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*CUT, "model.student.layers=[1,3]"], True),
        ([*CUT, "model.student.layers=[1,3]", "method=semalign_joint"], False),
        ([*CUT, "model.student.layers=[1,3]", "method=semalign"], False),
        ([], False),
        (["model=nano-cut"], False),
    ],
)
def test_a_pair_of_your_own_is_told_of_the_method_for_cut_students(pkt, words, told):
    result = pkt("extract", "tracker=none", "data.sizes.train=8", *words)
    assert result.code == 0, result.err
    assert ("method=semalign_cut is made for that" in result.err) == told
