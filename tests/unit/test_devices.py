"""Where no GPU is: what is fitted on numbers of another device never mixes them with the processor's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from elsewhere import AWAY, elsewhere
from pkt.pipeline import every_option
from pkt.semantics import HeadView, gram
from pkt.semantics.factor import WIDE, factorise, invert
from pkt.semantics.quality import _rank_and_condition


def test_the_pretended_device_refuses_what_a_gpu_refuses():
    with elsewhere() as away:
        own, other = away(torch.ones(3, 3)), torch.ones(3, 3)
        assert own.device == (own @ own).device == torch.zeros(2, device=own.device).device == AWAY
        assert own.cpu().device == other.device == torch.device("cpu")
        assert other.to(own).device == AWAY
        with pytest.raises(RuntimeError, match="same device"):
            own @ other
        with pytest.raises(TypeError, match="numpy"):
            own.numpy()
        own[torch.tensor([0, 2])] += 1.0  # an index may be the processor's
    assert float(own.as_subclass(torch.Tensor).sum()) == 15


def maps() -> dict[str, Any]:
    """Return every map by name, ridge with each way to its penalty."""
    found = every_option("semantics")
    ridge = {f"ridge, alpha={alpha}": replace(found["ridge"], alpha=alpha) for alpha in (None, 0.0, 1e-4)}
    return {name: own for name, own in found.items() if name != "ridge"} | ridge


@pytest.mark.parametrize("name", maps())
def test_maps_of_states_and_heads_elsewhere_are_those_of_the_processor(name: str):
    semantics = maps()[name]
    torch.manual_seed(0)
    teacher, student = torch.randn(300, 24), torch.randn(300, 24 if name == "identity" else 16)
    states = torch.randn(500, 24), torch.randn(500, student.shape[1])

    def fitted(place):
        sides = (
            HeadView(weight=place(own), embedding=place(own), norm=None, shared=torch.arange(300))
            for own in (teacher, student)
        )
        more = {"states": tuple(map(place, states))} if semantics.needs_states else {}
        return semantics.fit(teacher=next(sides), student=next(sides), **more)

    here = fitted(lambda own: own)(states[0])
    with elsewhere() as away:
        found = fitted(away)
        assert found.weight is None or found.weight.device == AWAY
        there = found(away(states[0])).cpu()
    torch.testing.assert_close(there, here, rtol=0, atol=0)


@pytest.mark.parametrize("width", [24, WIDE + 8])
def test_a_wide_head_elsewhere_has_the_same_inverse(width: int):
    torch.manual_seed(0)
    weight = torch.randn(2 * width, width)
    here = invert(gram(weight), 1e-10)
    with elsewhere() as away:
        there = invert(gram(away(weight)), 1e-10)
        assert there.inverse.device == factorise(gram(away(weight)), 1e-10).inverse.device == AWAY
        assert _rank_and_condition(away(weight)) == _rank_and_condition(weight)
        found = there.inverse.cpu()
    torch.testing.assert_close(found, here.inverse, rtol=0, atol=0)
    assert there.condition == here.condition
