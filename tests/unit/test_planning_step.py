"""The closed form of a training step's memory against the real step under a memory tracker, from nano to 13 billion."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from pkt.build import build
from pkt.planning.estimate import settled
from pkt.planning.memory import total
from pkt.planning.rows import Counts, Rows
from pkt.planning.schedule import Schedule
from pkt.planning.shapes import Shape
from pkt.planning.training import transfer
from pkt.planning.wanted import wanted
from pkt.searchpath import builtin_conf_dir, register
from plan_oracle import llama, step_bytes

NEAR = 0.1  # of the tracked bytes
NANO = llama(64, 3, 176, 4, 2, 1152)
SMOLLM2 = llama(576, 30, 1536, 9, 3, 49152, tie_word_embeddings=True)
BETWEEN = {
    "narrow": llama(192, 8, 448, 6, 2, 4096),
    "even": llama(320, 6, 896, 5, 5, 9000),
    "wide": llama(512, 4, 1408, 8, 4, 32000, tie_word_embeddings=True),
}


def both(
    config: dict[str, Any], *words: str, rows: int = 4, prompt: int = 24, answer: int = 40
) -> tuple[float, int]:
    """Return the bytes that the plan says and those that are tracked, of a step at a student of some config."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        cfg = compose("plan", overrides=[f"optim.batch_size={rows}", *words])
    student = Shape.read(config, cfg.model.student.dtype, "the student")
    asked = wanted(settled(cfg), student, student, None, cfg)
    splits = dict.fromkeys(("extract", "align", "train", "validation"), Rows.alike(rows, prompt, answer))
    counts = Counts(splits=splits, prompts=Rows(), scored=(), told="")
    moments = transfer(asked, counts).moments
    frontier = asked.frontier
    layers = asked.trained[:1] if frontier else asked.trained
    tracked = step_bytes(
        config,
        build(cfg.objective),
        update=build(cfg.method).update,
        layers=layers,
        rows=rows,
        prompt=prompt,
        answer=answer,
        first=layers[0] if frontier else Schedule(wanted=asked, rows=counts).first,
        dtype=cfg.model.student.dtype,
        again=cfg.optim.checkpointing,
        learns=asked.trains_maps,
    )
    apart = () if asked.trains_maps else ("maps",)  # those that do not train are not in the step
    said = max(
        total(items, on=lambda item: not item.host and item.what not in apart) for items in moments.values()
    )
    if frontier:  # the tracker sees one stage of it
        said -= (len(asked.trained) - 1) * asked.per_layer * (4 - student.bytes)
    return said, tracked


V1 = ("method=semalign", "mapping=last")
JOINT = ("method=semalign_joint",)
METHODS = {
    "fitted again": (*JOINT, "semantics=ridge_refit"),
    "joint": JOINT,
    "frontier": ("method=semalign_fisher",),
    "all labels": ("method=sft",),
    "distilled": ("method=kd",),
    "recomputed": (*JOINT, "optim.checkpointing=true"),
    "adapters": (*JOINT, "method.update.kind=lora"),
    "half": ("method=sft", "model.student.dtype=bfloat16"),
    "half adapters": ("method=sft", "method.update.kind=lora", "model.student.dtype=bfloat16"),
}


def test_a_step_at_nano():
    said, tracked = both(NANO, *JOINT, rows=16, prompt=44, answer=13)
    assert said == pytest.approx(tracked, rel=NEAR)


@pytest.mark.parametrize(
    "name", ["wide", *(pytest.param(name, marks=pytest.mark.slow) for name in ("narrow", "even"))]
)
def test_a_step_of_one_layer_between_nano_and_smollm2(name: str):
    said, tracked = both(BETWEEN[name], *V1, rows=3, prompt=50, answer=20)
    assert said == pytest.approx(tracked, rel=NEAR)


def test_a_step_of_one_layer_at_smollm2():
    said, tracked = both(SMOLLM2, *V1, rows=4, prompt=100, answer=60)
    assert said == pytest.approx(tracked, rel=NEAR)


@pytest.mark.slow
@pytest.mark.parametrize("words", METHODS.values(), ids=METHODS)
def test_a_step_of_each_kind(words: tuple[str, ...]):
    said, tracked = both(BETWEEN["narrow"], *words)
    assert said == pytest.approx(tracked, rel=NEAR)


@pytest.mark.slow
@pytest.mark.parametrize("name", BETWEEN)
def test_a_step_of_every_layer_between_nano_and_smollm2(name: str):
    said, tracked = both(BETWEEN[name], *JOINT, rows=3, prompt=50, answer=20)
    assert said == pytest.approx(tracked, rel=NEAR)


@pytest.mark.slow
def test_chunks_of_logits_are_computed_again():
    said, tracked = both(BETWEEN["wide"], "method=kd", rows=24, prompt=8, answer=120)
    assert said == pytest.approx(tracked, rel=NEAR)


@pytest.mark.slow
@pytest.mark.parametrize("words", [JOINT, ("method=sft", "method.update.kind=lora")], ids=str)
def test_a_step_of_every_layer_at_smollm2(words: tuple[str, ...]):
    said, tracked = both(SMOLLM2, *words, rows=4, prompt=100, answer=60)
    assert said == pytest.approx(tracked, rel=NEAR)


LARGE = {"7B": llama(4096, 32, 11008, 32, 32, 32000), "13B": llama(5120, 40, 13824, 40, 40, 32000)}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("words", [JOINT, ("method=semalign",)], ids=["joint", "v1"])
def test_a_step_at_the_sizes_of_the_paper(name: str, words: tuple[str, ...]):
    said, tracked = both(LARGE[name], *words, "model.student.dtype=bfloat16", rows=4, prompt=128, answer=128)
    assert said == pytest.approx(tracked, rel=NEAR)
