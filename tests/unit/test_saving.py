"""What is saved comes back as it was, of the same types; what is damaged or of another kind is refused in words."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from pkt.errors import PktError
from pkt.saving import load, save


@dataclass(frozen=True, kw_only=True)
class Inner:
    numbers: tuple[float, ...]
    tensor: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    text: str
    flag: bool
    either: float | int
    layers: dict[int, Inner]
    named: dict[str, dict[str, float | None]]
    pair: tuple[Tensor, str]
    rows: tuple[tuple[int, ...], ...]
    notes: list[str]
    free: list[dict[str, Any]]


def same(one, two):
    """Whether two values are equal in every part, in value, type and dtype."""
    if type(one) is not type(two):
        return False
    if isinstance(one, Tensor):
        return one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two or (isinstance(one, float) and math.isnan(one) and math.isnan(two))


def outer(**changes) -> Outer:
    value = Outer(
        text="é\n",
        flag=True,
        either=3,
        layers={7: Inner(numbers=(0.1, 1.0, math.inf)), 2: Inner(numbers=(), tensor=torch.randn(2, 3))},
        named={"3.up": {"a": None, "b/c": 1e-300}, "": {}},
        pair=(torch.arange(4), "x"),
        rows=((1, 2), ()),
        notes=[],
        free=[{"a": [1, {"b": None}], "c": 0.5}],
    )
    return replace(value, **changes)


TENSORS = [
    torch.randn(3, 2, dtype=torch.bfloat16),
    torch.randn(3, 2, dtype=torch.float64).T,
    torch.tensor(5, dtype=torch.int32),
    torch.empty(0, 4),
    torch.tensor([True, False]),
    torch.randn(6, 5)[1:3, ::2],
    torch.randn(4, requires_grad=True),
]


@pytest.mark.parametrize("tensor", TENSORS, ids=lambda t: f"{t.dtype}-{tuple(t.shape)}")
def test_everything_comes_back(tmp_path, tensor):
    value = outer(pair=(tensor, "x"), either=2.0)
    save(value, tmp_path / "x.json")
    assert same(load(Outer, tmp_path / "x.json"), replace(value, pair=(tensor.detach(), "x")))


@pytest.mark.parametrize("either", [3, 3.0, math.nan, -0.0])
def test_an_integer_stays_one_beside_numbers(tmp_path, either):
    save(outer(either=either), tmp_path / "x.json")
    got = load(Outer, tmp_path / "x.json").either
    assert (type(got), str(got)) == (type(either), str(either))


def test_shared_memory(tmp_path):
    whole = torch.randn(4, 3)
    parts = {
        1: whole,
        2: whole.detach(),
        3: whole[:2],
        4: whole.flatten(),
        5: torch.empty(0),
        6: torch.empty(0),
    }
    value = outer(layers={layer: Inner(numbers=(), tensor=part) for layer, part in parts.items()})
    save(value, tmp_path / "x.json")
    got = load(Outer, tmp_path / "x.json")
    assert same(got, value)
    assert got.layers[1].tensor is got.layers[2].tensor
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert len(file.keys()) == 6  # the pair's tensor, and all parts but the second


def test_without_tensors_there_is_one_file(tmp_path):
    save(Inner(numbers=(1.0,)), tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert load(Inner, tmp_path / "x.json") == Inner(numbers=(1.0,))


@pytest.mark.parametrize("what", [{1, 2}, object(), {(1, 2): "x"}, torch.float32])
def test_what_cannot_be_read_again_is_not_written(tmp_path, what):
    with pytest.raises(TypeError, match="/notes"):
        save(outer(notes=what), tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.json", "x.safetensors"])
@pytest.mark.parametrize("left", [0, 10, -1, None])
def test_damaged_files_are_refused(tmp_path, name, left):
    save(outer(), tmp_path / "x.json")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if left is not None:
        (tmp_path / name).write_bytes(
            content[: left - 1 if left < 0 else left]
        )  # -1: less the last "}" and line end
    with pytest.raises(PktError, match=rf"x\.json holds no whole Outer \(.*delete {tmp_path}"):
        load(Outer, tmp_path / "x.json")


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("flag", 1, "/flag should be of type bool, not '1'"),
        ("either", "3", "/either should be of type"),
        ("either", True, "/either should be of type"),
        ("text", None, "/text should be of type str"),
        ("rows", [[1, 2.5]], "/rows/0/1 should be of type int, not '2.5'"),
        ("pair", ["/pair/0"], "/pair should be of type"),
        ("pair", ["/nowhere", "x"], "/pair/0 should be of type Tensor, not '/nowhere'"),
        ("layers", {"one": {"numbers": [], "tensor": None}}, "'one'"),
        (
            "layers",
            {"1": {"numbers": []}},
            "/layers/1 should have the fields of Inner; they differ in: tensor",
        ),
        ("named", {"a": {"b": "c"}}, "/named/a/b should be of type"),
    ],
)
def test_other_types_are_refused(tmp_path, field, wrong, message):
    save(outer(), tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(content | {field: wrong}))
    with pytest.raises(PktError, match=message):
        load(Outer, tmp_path / "x.json")


def test_another_class_is_refused(tmp_path):
    save(outer(), tmp_path / "x.json")
    with pytest.raises(PktError, match="it should have the fields of Inner"):
        load(Inner, tmp_path / "x.json")
