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
from omegaconf import DictConfig, OmegaConf

from pkt.checks import MOVED, check
from pkt.cli import VERBS
from pkt.config import Config
from pkt.errors import RequestError
from pkt.explain import CONFIG_ERRORS, explain
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


NAMED = {"task", "term"}  # groups whose files are found by name, or inside an objective


@pytest.mark.parametrize("choice", options(*(groups().keys() - NAMED)))
def test_every_option_composes_and_makes_sense(choice: str):
    check(composed(choice, *NEEDS.get(choice, [])))


@pytest.mark.parametrize("choice", options(*STRATEGIES))
def test_every_strategy_builds(choice: str):
    from pkt.build import build

    group = choice.partition("=")[0]
    assert dataclasses.is_dataclass(build(composed(choice, *NEEDS.get(choice, []))[group]))


@pytest.mark.parametrize("term", groups()["term"])
def test_every_term_can_take_the_place_of_another_and_be_added(term: str):
    from pkt.build import build

    cfg = composed(
        "objective=layer", f"term@objective.terms.layer={term}", f"+term@objective.terms.more={term}"
    )
    check(cfg)
    assert list(build(cfg.objective).terms) == ["layer", "more"]


@pytest.mark.parametrize("key", MOVED)
@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_key_that_moved_is_refused_with_its_new_name(key: str, plus: str):
    with pytest.raises((RequestError, *CONFIG_ERRORS)) as caught:
        check(composed(f"{plus}{key}=1"))
    told = str(caught.value) if isinstance(caught.value, RequestError) else explain(caught.value)
    assert told == f"'{key}' has been replaced: use {MOVED[key]}"


NEW = {key for new in MOVED.values() for key in re.findall(r"objective[.a-z_]+\w", new)}


@pytest.mark.parametrize("key", sorted(NEW))
def test_the_new_name_is_one(key: str):
    known = [
        composed("objective=joint_kl", f"term@objective.terms.layer={term}")
        for term in ("fisher", "geometry")
    ]
    assert any(OmegaConf.select(cfg, key.removesuffix(".")) is not None for cfg in known), key


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


def test_yaml_names_no_machine():
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert not re.search(r"(^|[\s\"':])/(home|tmp|root|work|Users)/", path.read_text(encoding="utf-8")), (
            path
        )
