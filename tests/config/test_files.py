"""Every config file composes, every strategy builds, every leaf of the typed root has a reader."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from pkt.checks import BOUNDS, CHOICES, check
from pkt.cli import VERBS
from pkt.config import Config
from pkt.searchpath import builtin_conf_dir, groups, register

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = ("method", "mapping", "semantics", "objective")
# options that make no sense without a value of the user's
NEEDS = {
    "benchmark=custom": ["data.train=rows.jsonl", "data.test=rows.jsonl"],
    "mapping=explicit": ["mapping.layers=[[1,1]]"],
}


@pytest.fixture(autouse=True)
def _no_folders_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PKT_CONFIG_DIR", "PKT_OUTPUT_DIR", "PKT_LAUNCHER"):
        monkeypatch.delenv(name, raising=False)


def composed(*overrides: str, verb: str = "run") -> DictConfig:
    for choice in PLUGINS.keys() & overrides:
        pytest.importorskip(PLUGINS[choice], reason=f"{choice} needs a plugin")
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose(verb, overrides=list(overrides))


# options whose files name what a plugin brings: choice -> the plugin's package
PLUGINS = {"experiment=tune": "optuna"}


def options(*wanted: str) -> list[str]:
    return [f"{group}={option}" for group, listed in groups().items() for option in listed if group in wanted]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes(verb: str):
    cfg = composed(verb=verb)
    assert cfg.verb == verb
    if verb != "report":  # it has a small root of its own, and runs= has no default
        check(cfg)


@pytest.mark.parametrize("choice", options(*groups()))
def test_every_option_composes_and_makes_sense(choice: str):
    check(composed(choice, *NEEDS.get(choice, [])))


@pytest.mark.parametrize("choice", options(*STRATEGIES))
def test_every_strategy_builds(choice: str):
    from pkt.build import build

    group = choice.partition("=")[0]
    assert dataclasses.is_dataclass(build(composed(choice, *NEEDS.get(choice, []))[group]))


@pytest.mark.parametrize("choice", options("experiment", "method", "benchmark"))
def test_what_an_overlay_chooses_gives_way_to_the_user(choice: str):
    cfg = composed(choice, "mapping=depth", "optim=nano", "optim.lr=0.125", "seed=9")
    plain = composed("mapping=depth")
    assert cfg.mapping._target_ == plain.mapping._target_
    assert (cfg.optim.lr, cfg.seed) == (0.125, 9)


def leaves(cls: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(cls):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if dataclasses.is_dataclass(default):
            yield from leaves(type(default), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_every_leaf_is_read_by_some_code():
    own = {"config.py", "checks.py"}
    sources = [path for path in (ROOT / "src" / "pkt").rglob("*.py") if path.name not in own]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    last = {leaf: leaf.rpartition(".")[2] for leaf in leaves(Config)}  # read as .name, or by "name" (splits)
    unread = [leaf for leaf, name in last.items() if not re.search(rf"\.{name}\b|\"{name}\"", code)]
    assert not unread


def test_checks_name_keys_that_exist():
    known = set(leaves(Config)) | {"model.teacher.init", "model.teacher.dtype"}
    assert set(CHOICES) | set(BOUNDS) <= known


def test_yaml_names_no_machine():
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert not re.search(r"(^|[\s\"':])/(home|tmp|root|work|Users)/", path.read_text(encoding="utf-8")), (
            path
        )
