"""Every config file composes, every strategy builds, every leaf of the typed root has a reader."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from cases import mostly_slow
from pkt.checks import MOVED, check
from pkt.config import Config, OptimConfig
from pkt.errors import RequestError
from pkt.explain import CONFIG_ERRORS, explain
from pkt.searchpath import builtin_conf_dir, groups, register
from pkt.verbs import COMPOSED

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


@pytest.mark.parametrize("verb", COMPOSED)
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


@pytest.mark.parametrize("key", mostly_slow(MOVED, lambda key: key == next(iter(MOVED))))
@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_key_that_moved_is_refused_with_its_new_name(key: str, plus: str):
    with pytest.raises((RequestError, *CONFIG_ERRORS)) as caught:
        check(composed(f"{plus}{key}=1"))
    told = str(caught.value) if isinstance(caught.value, RequestError) else explain(caught.value)
    assert told == f"'{key}' has been replaced: use {MOVED[key]}"


NEW = {key for new in MOVED.values() for key in re.findall(r"objective[.a-z_]+\w", new)}


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(NEW))
def test_the_new_name_is_one(key: str):
    known = [
        composed("objective=joint_kl", f"term@objective.terms.layer={term}")
        for term in ("fisher", "geometry")
    ]
    assert any(OmegaConf.select(cfg, key.removesuffix(".")) is not None for cfg in known), key


@pytest.mark.slow
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


class Reads(ast.NodeVisitor):
    """Collects which fields of the typed root's nodes some code reads, following names and annotations to their types.

    A name or an attribute may be a node where an annotation says so (`config: Config`, also of a field or of what a
    property returns), where it is a field of a node (`config.optim`), or where a node was assigned to it.
    """

    def __init__(self, trees: Sequence[ast.Module], root: type) -> None:
        self.nodes = {node.__name__: node for node in nodes(root)}
        self.annotated: dict[str, set[type]] = {"cfg": {root}}  # as OmegaConf has it
        self.assigned: dict[str, set[type]] = {}
        self.words: set[str] = set()
        self.found: set[tuple[type, str]] = set()
        for entry in (entry for tree in trees for entry in ast.walk(tree)):
            match entry:
                case ast.Constant(value=str(word)):
                    self.words.add(word)
                case (
                    ast.arg(arg=name, annotation=said)
                    | ast.AnnAssign(target=ast.Name(id=name), annotation=said)
                ):
                    self.annotate(name, said)
                case ast.FunctionDef(name=name, returns=said):
                    self.annotate(name, said)
        for tree in trees:
            self.assigned = {}
            self.visit(tree)

    def annotate(self, name: str, said: ast.expr | None) -> None:
        parts = ast.walk(said) if said is not None else ()
        named = {part.id for part in parts if isinstance(part, ast.Name)} & self.nodes.keys()
        self.annotated.setdefault(name, set()).update(self.nodes[node] for node in named)

    def types(self, expression: ast.expr) -> set[type]:
        match expression:
            case ast.Name(id=name):
                return self.assigned.get(name) or self.annotated.get(name, set())
            case ast.Attribute(value=value, attr=name):
                inside = [fields(owner)[name] for owner in self.types(value) if name in fields(owner)]
                if inside:
                    return {type(node) for node in inside if is_node(node)}
                return self.assigned.get(name) or self.annotated.get(name, set())
        return set()

    def visit_Assign(self, entry: ast.Assign) -> None:
        for target in entry.targets:
            pairs = [(target, entry.value)]
            if isinstance(target, ast.Tuple) and isinstance(entry.value, ast.Tuple):
                pairs = list(zip(target.elts, entry.value.elts, strict=False))
            for name, value in pairs:
                if isinstance(name, ast.Name | ast.Attribute) and (found := self.types(value)):
                    self.assigned[name.id if isinstance(name, ast.Name) else name.attr] = found
        self.generic_visit(entry)

    def visit_Attribute(self, entry: ast.Attribute) -> None:
        if isinstance(entry.ctx, ast.Load):
            self.found |= {(owner, entry.attr) for owner in self.types(entry.value)}
        self.generic_visit(entry)

    def visit_Call(self, entry: ast.Call) -> None:
        if (
            isinstance(entry.func, ast.Name) and entry.func.id == "getattr"
        ):  # a split's size by the split's name
            owners = self.types(entry.args[0])
            self.found |= {(owner, name) for owner in owners for name in fields(owner).keys() & self.words}
        self.generic_visit(entry)


@cache
def fields(cls: Any) -> dict[str, Any]:
    """Defaults by name."""
    return {
        field.name: field.default_factory() if callable(field.default_factory) else field.default
        for field in dataclasses.fields(cls)
    }


def is_node(default: Any) -> bool:
    return dataclasses.is_dataclass(default) and not isinstance(default, type)


def nodes(root: type) -> Iterator[type]:
    yield root
    for default in fields(root).values():
        if is_node(default):
            yield from nodes(type(default))


@cache
def trees() -> list[ast.Module]:
    own = {"config.py", "checks.py"}
    files = [path for path in (ROOT / "src" / "pkt").rglob("*.py") if path.name not in own]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in files]


def unread(root: type) -> set[str]:
    reads = Reads(trees(), root).found
    every = {
        (node, name) for node in nodes(root) for name, default in fields(node).items() if not is_node(default)
    }
    return {f"{node.__name__}.{name}" for node, name in every - reads}


def test_every_leaf_is_read_by_some_code():
    assert unread(Config) == set()


def test_leaves_that_nothing_reads_are_found():
    planted = {"nesterov", "name", "seed", "rows"}  # the last three are read, off other nodes
    more = [(name, int, 0) for name in planted]
    node = dataclasses.make_dataclass("OptimConfig", more, bases=(OptimConfig,), kw_only=True)
    optim = ("optim", node, dataclasses.field(default_factory=node))
    root = dataclasses.make_dataclass("Config", [optim], bases=(Config,), kw_only=True)
    assert unread(root) == {f"OptimConfig.{name}" for name in planted}


def test_yaml_names_no_machine():
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert not re.search(r"(^|[\s\"':])/(home|tmp|root|work|Users)/", path.read_text(encoding="utf-8")), (
            path
        )


CUT = ("nano-cut", "nano-narrow", "smollm2-135m-to-half", "smollm2-135m-to-pruned")


@pytest.mark.parametrize(
    "name",
    mostly_slow([(name,) for name in groups()["model"]], lambda name: name in (CUT[0], CUT[2], "nano")),
)
def test_cut_students_have_a_method_of_their_own_and_every_other_pair_the_general_one(name):
    asked = composed(f"model={name}")
    assert (asked.model.student.init == "prune") == (name in CUT)
    assert asked.method.name == ("semalign_cut" if name in CUT else "semalign_joint")
    assert (asked.mapping._target_ == "pkt.mapping.Cut") == (name in CUT)


@pytest.mark.parametrize("word", ["method=kd", "method=semalign_joint", "experiment=paper_seeking"])
def test_what_is_asked_for_counts_before_the_pairs_own_method(word):
    asked, plain = composed("model=nano-cut", word), composed(word)
    for group in ("method", "mapping", "semantics", "objective"):
        assert asked[group] == plain[group]
