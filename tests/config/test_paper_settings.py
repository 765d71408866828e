"""The experiments named after papers have the papers' hyper-parameters, and score by the papers' protocol."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from pkt.searchpath import builtin_conf_dir, register

# benchmark -> epochs, train rows, learning rate (SemAlign); steps of the hypernetwork, extract and align rows (LaTen)
PUBLISHED = {
    "mmlu": (5, 1000, 3e-4, 2, 20, 80),
    "gsm8k": (5, 1000, 3e-4, 4, 20, 80),
    "humaneval": (3, 1000, 3e-5, 3, 20, 80),
    "mbpp": (5, 300, 3e-4, 8, 32, 40),
}


def composed(*overrides: str) -> DictConfig:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose("run", overrides=list(overrides))


@pytest.mark.parametrize("name", PUBLISHED)
def test_semalign(name: str):
    epochs, rows, lr, *_ = PUBLISHED[name]
    cfg = composed(f"experiment=paper_{name}", f"benchmark={name}")
    assert (cfg.optim.epochs, cfg.data.sizes.train, cfg.optim.lr) == (epochs, rows, lr)
    assert (cfg.optim.batch_size, cfg.optim.precision) == (64, "float32")
    assert (cfg.method.name, cfg.method.interface) == ("semalign", "mlp")
    assert (cfg.method["update"].kind, cfg.method["update"].rank, cfg.method["update"].alpha) == (
        "lora",
        16,
        16.0,
    )
    assert list(cfg.method["update"].targets) == ["up", "down", "v", "o"]
    assert cfg.mapping._target_.endswith("Critical")
    assert cfg.semantics._target_.endswith("Cosine")


@pytest.mark.parametrize("name", PUBLISHED)
def test_laten(name: str):
    _, rows, _, steps, extract, align = PUBLISHED[name]
    cfg = composed(f"experiment=paper_laten_{name}", f"benchmark={name}")
    sizes = cfg.data.sizes
    assert (sizes.extract, sizes.align, sizes.train) == (extract, align, rows)
    assert (cfg.method.name, cfg.method.rho, cfg.method.steps, cfg.method.lr) == ("laten", 0.1, steps, 3e-5)
    assert (cfg.method.weight_decay, cfg.method.penalty) == (0.05, 1000.0)
    assert (cfg.method.align_rows, cfg.method.extract_rows) == (15, 1)


@pytest.mark.parametrize(
    ("name", "recipe", "epochs"), [("seeking", "original", 3), ("seeking_laten", "laten", 5)]
)
def test_seeking(name: str, recipe: str, epochs: int):
    cfg = composed(f"experiment=paper_{name}", "benchmark=gsm8k")
    assert (cfg.method.name, cfg.method.recipe, cfg.optim.epochs) == ("seeking", recipe, epochs)
    assert (cfg.data.sizes.extract, cfg.data.sizes.train) == (32, 1000)
    assert (cfg.optim.lr, cfg.optim.batch_size) == (3e-4, 64)
    assert (cfg.optim.schedule, cfg.optim.warmup) == ("linear", 0.03)
    assert (cfg.method["update"].rank, cfg.method["update"].alpha, cfg.method["update"].dropout) == (
        16,
        16.0,
        0.05,
    )


@pytest.mark.parametrize("method", ["", "laten_"])
def test_humaneval_draws_twenty_answers_and_the_others_are_greedy(method: str):
    for name in PUBLISHED:
        asked = composed(f"experiment=paper_{method}{name}", f"benchmark={name}").eval
        assert (asked.samples, asked.temperature) == ((20, 0.1) if name == "humaneval" else (1, 0.0))
        assert asked.max_new_tokens is None  # the protocol's 512
