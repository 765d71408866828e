"""A student that is its own teacher has nothing to learn from its layers, where the map can be the identity."""

from __future__ import annotations

import pytest

from cases import mostly_slow

LR = "optim.lr=1e-20"  # the weights stay where they are, so that every stage of a frontier sees the same student
PROCRUSTES, RIDGE = ("semantics=procrustes",), ("semantics=ridge", "semantics.alpha=0")
CLAIMS = [
    ("semalign", "llama", (*RIDGE, "mapping=depth", "objective.terms.layer.positions=all")),
    ("semalign", "gpt2", (*PROCRUSTES, "mapping=depth", "objective.terms.layer.positions=all")),
    (
        "semalign_joint",
        "qwen3",
        (*RIDGE, "term@objective.terms.layer=mean_square", "objective.terms.layer.positions=all"),
    ),
    ("semalign_joint", "gemma3_text", (*PROCRUSTES, "objective.terms.layer.positions=all")),
    ("semalign_fisher", "llama", (*PROCRUSTES, "mapping=depth")),
    ("semalign_fisher", "gemma3_text", (*RIDGE, "mapping=depth")),
    ("semalign_geometry", "qwen3", ("mapping=depth", *PROCRUSTES)),
    ("semalign_geometry", "gpt2", ("mapping=depth", *RIDGE, "method.span=between")),
]


def layer_losses(world, outputs, method, family, settings, teacher) -> list[float]:
    more = (LR, "method.update.rank=4")
    run = world.run(method, family, *more, outputs=outputs, settings=settings, teacher=teacher)
    return [step["loss_layer"] for step in run.steps if "loss_layer" in step]


@pytest.mark.parametrize(
    ("method", "family", "settings"),
    mostly_slow(CLAIMS, lambda method, *_: "joint" in method),
    ids=[f"{m}-{f}" for m, f, _ in CLAIMS],
)
def test_no_layer_loss_against_itself_but_against_any_other(world, tmp_path, method, family, settings):
    own = layer_losses(world, tmp_path / "own", method, family, settings, world.student(family))
    other = layer_losses(world, tmp_path / "other", method, family, settings, None)
    # four steps over three layers: the Fisher form spends the last two on its output alone
    assert len(own) == len(other) == (2 if method == "semalign_fisher" else 4)
    assert max(own) < 1e-5
    assert min(other) > 1e-3
