"""Strategy nodes are built strictly."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import pytest
from omegaconf import OmegaConf

from pkt.build import build
from pkt.errors import PktError, RequestError
from pkt.settings import setting


@dataclass(frozen=True, kw_only=True)
class Inner:
    rank: int = 4
    kind: Literal["lora", "full"] = "lora"


@dataclass(frozen=True, kw_only=True)
class Widget:
    rate: float
    count: int | None = None
    targets: tuple[str, ...] = ("up",)
    names: list[str] = field(default_factory=list)
    pairs: tuple[tuple[int, int], ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    other: Any = None
    flag: bool = False
    limit: int | float | str = 1
    share: float | None = setting(0.5, above=0)
    at: tuple[str, ...] = setting((), choices=("up", "down"))
    steps: int = setting(1, at_least=1)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate: a number from 0 is expected")


@dataclass(frozen=True)
class Foreign:
    pass


@runtime_checkable
class Paired(Protocol):
    def pairs_of(self) -> int: ...


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pkt.widgets")
    for cls in (Widget, Inner):
        monkeypatch.setattr(cls, "__module__", "pkt.widgets")
        setattr(module, cls.__name__, cls)
    module.Foreign = Foreign
    module.popen = print
    # where get_type_hints looks names up
    module.__dict__.update({"Any": Any, "Literal": Literal, "field": field})
    monkeypatch.setitem(sys.modules, "pkt.widgets", module)


def node(**values: Any) -> Any:
    return OmegaConf.create({"mapping": {"_target_": "pkt.widgets.Widget", "rate": 0.5, **values}}).mapping


def test_values_take_the_types_of_the_fields():
    built = build(
        node(
            count=3,
            targets=["v", "o"],
            names=["a"],
            pairs=[[1, 2], [3, 4]],
            weights={"a": 1},
            inner={"rank": 8},
            flag=True,
            limit=2,
        ),
        Widget,
    )
    expected = Widget(
        rate=0.5,
        count=3,
        targets=("v", "o"),
        names=["a"],
        pairs=((1, 2), (3, 4)),
        weights={"a": 1.0},
        inner=Inner(rank=8),
        flag=True,
        limit=2,
    )
    assert built == expected
    assert isinstance(built.weights["a"], float)
    assert isinstance(built.limit, int)


def test_defaults_and_null():
    assert build(node(count=None)) == Widget(rate=0.5)
    assert build(node(share=None)).share is None


def test_nested_target_is_built():
    assert build(node(other={"_target_": "pkt.widgets.Inner", "rank": 2})).other == Inner(rank=2)


def test_interpolations_are_filled_in():
    root = OmegaConf.create({"seed": 7, "mapping": {"_target_": "pkt.widgets.Widget", "rate": "${seed}"}})
    assert build(root.mapping).rate == 7.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, r"unknown key 'mapping.rat'; allowed here: rate, .*did you mean 'rate'"),
        ({"rate": "abc"}, r"mapping.rate: a number is expected, got 'abc'"),
        ({"rate": "???"}, r"mapping.rate is not set"),
        ({"rate": -1}, r"mapping: rate: a number from 0"),
        ({"count": 1.5}, r"mapping.count: an integer is expected, got 1.5"),
        ({"count": True}, r"mapping.count: an integer is expected, got True"),
        ({"targets": "up"}, r"mapping.targets: .* is expected, got 'up'"),
        ({"targets": [1, [2]]}, r"mapping.targets\[1\]"),
        ({"pairs": [[1, 2, 3]]}, r"mapping.pairs\[0\]: 2 values are expected, got 3"),
        ({"pairs": [[1, "x"]]}, r"mapping.pairs\[0\]\[1\]: an integer"),
        ({"inner": {"rnk": 1}}, r"unknown key 'mapping.inner.rnk'.*did you mean 'rank'"),
        (
            {"inner": {"kind": "lra"}},
            r"mapping.inner.kind: got 'lra'; allowed: lora, full.*did you mean 'lora'",
        ),
        ({"weights": {"a": "x"}}, r"mapping.weights.a: a number"),
        ({"flag": "perhaps"}, r"mapping.flag: true or false is expected"),
        ({"share": 0}, r"mapping.share: a value above 0 is expected, got 0"),
        ({"share": "nan"}, r"mapping.share: a value above 0 is expected, got nan"),
        ({"steps": 0}, r"mapping.steps: a value from 1 is expected, got 0"),
        ({"at": ["up", "dawn"]}, r"mapping.at: got 'dawn'; allowed: up, down \(did you mean 'down'"),
        ({"_partial_": True}, r"unknown key 'mapping._partial_'"),
        ({"_target_": "os.system"}, r"a dataclass of pkt is expected .* got 'os.system'"),
        ({"_target_": "pktx.Widget"}, r"a dataclass of pkt is expected"),
        ({"_target_": "pkt.widgets.popen"}, r"no strategy 'popen' in pkt.widgets; it has: Inner, Widget"),
        ({"_target_": "pkt.widgets.Foreign"}, r"no strategy 'Foreign'"),
        ({"_target_": "pkt.widgets.Widgit"}, r"did you mean 'Widget'"),
        ({"_target_": "pkt.nowhere.Widget"}, r"pkt has no module 'pkt.nowhere'"),
        ({"_target_": None}, r"got None"),
    ],
)
def test_what_is_wrong_is_refused(values: dict[str, Any], message: str):
    with pytest.raises(RequestError, match=message):
        build(node(**values))


def test_protocol_is_checked():
    with pytest.raises(RequestError, match="is no Paired"):
        build(node(), Paired)


def test_missing_node():
    with pytest.raises(RequestError, match="is not set"):
        build(OmegaConf.create({"mapping": None})._get_node("mapping"))


def test_missing_package_is_the_tasks_failure(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'captum'", name="captum")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(PktError, match="needs the package 'captum'") as caught:
        build(node())
    assert caught.value.exit_code == 1
