"""What goes with what: the page is what the code says, and what it refuses is refused on the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "combinations.py"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    for name in ("PKT_CONFIG_DIR", "PKT_OUTPUT_DIR", "PKT_LAUNCHER"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("combinations_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # every method with every option
def test_the_page_in_docs_is_what_the_code_says(page):
    assert page.main(["--check"]) == 0, "run: python scripts/combinations.py"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["method=semalign_fisher", "semantics=input"], "semantics=input maps into the space of the input"),
        (["method=semalign_fisher", "mapping=interpolate"], "exactly one teacher layer per student layer"),
        (["method=semalign_fisher", "method.interface=mlp"], "set method.interface=block (got mlp)"),
        (["method=semalign_geometry", "objective.terms.layer.positions=answer"], "set positions=all"),
        (
            ["method=semalign_geometry", "method.span=between", "method.interface=mlp"],
            "set method.interface=residual (got mlp)",
        ),
        (["method=semalign", "objective=ce"], "use method=sft or method=kd"),
        (["method=sft", "objective=kd"], "use objective=ce (or method=kd)"),
        (["method=kd", "objective=ce"], "use objective=kd (or method=sft)"),
        (["method=hidden_kd", "objective=fisher"], "use method=semalign_fisher"),
        (["method=seeking", "objective=joint"], "the term 'layer' (Cosine) has no target"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_with_the_reason(pkt, words, reason):
    result = pkt("transfer", *words, "tracker=none")
    assert result.code == 2
    assert reason in result.err
    assert "Traceback" not in result.err
    assert not list(pkt.outputs.rglob("*")) if pkt.outputs.exists() else True
