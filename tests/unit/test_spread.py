"""How states spread: cases that have an exact answer, and the command on a model of the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import pkt
from spread import main, spread


def test_equal_states_do_not_vary():
    assert spread(torch.tensor([[0.0, 2.0], [0.0, 5.0]]))[0] == pytest.approx(0.0)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_axes_and_their_opposites_vary_in_as_many_directions(count):
    axes = torch.eye(9)[:count] * 3
    varies, directions = spread(torch.cat([axes, -axes]))
    assert varies == pytest.approx(1.0)
    assert directions == pytest.approx(count)


def test_one_line_per_model(tmp_path, capsys):
    (tmp_path / "scores.json").write_text(
        json.dumps(
            {"samples": {"task": [{"prompt": "a b", "target": " c d"}, {"prompt": "b", "target": " a"}]}}
        )
    )
    model = str(Path(pkt.__file__).parent / "assets" / "nano" / "student")
    assert main([str(tmp_path / "scores.json"), model]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"{model}: ")
    assert line.count(" in ") == 3  # its layers
    assert main([]) == 2
