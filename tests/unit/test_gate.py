"""What the gate says of a request before anything is loaded."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from pkt import gate


@pytest.mark.parametrize(
    ("teacher", "student", "init", "told"),
    [
        ("package:pkt/assets/nano/teacher", "package:pkt/assets/nano/student", "load", False),
        ("package:pkt/assets/nano/teacher", None, "prune", False),
        ("package:pkt/assets/nano/teacher", "mine", "load", True),
        ("package:theirs/teacher", "package:theirs/student", "load", True),
        ("mine", None, "prune", True),
    ],
)
def test_other_models_on_the_rows_of_nano_are_told(capsys, teacher, student, init, told):
    models = {
        "name": "pair",
        "teacher": {"checkpoint": teacher, "init": "load"},
        "student": {"checkpoint": student, "init": init},
    }
    gate._tell_of_nano(OmegaConf.create({"model": models, "benchmark": {"name": "nano"}}))
    assert ("rows of the built-in models" in capsys.readouterr().err) is told
