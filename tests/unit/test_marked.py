"""What the command line has set is marked in the composed request, and nothing else is."""

from __future__ import annotations

import json

import pytest
import yaml

from pkt.marked import MARK


@pytest.mark.parametrize(
    ("words", "marked"),
    [
        (["optim.lr=0.5", "method=sft", "seed=3"], {"lr: 0.5", "method:", "seed: 3"}),
        (["objective.terms.ce.weight=2", "method=sft"], {"weight: 2", "method:"}),
        (["+term@objective.terms.more=mean_square"], set()),
        ([], set()),
    ],
)
def test_keys_that_words_name_are_marked(pkt, words, marked):
    done = pkt("transfer", *words, "--cfg", "job")
    assert done.code == 0, done.err
    found = {line.removesuffix(MARK).strip() for line in done.out.splitlines() if line.endswith(MARK)}
    assert found == marked
    assert yaml.safe_load(done.out)["verb"] == "transfer"


def test_a_part_is_marked_too(pkt):
    done = pkt("run", "optim.lr=0.5", "--cfg", "job", "-p", "optim")
    assert [line for line in done.out.splitlines() if line.endswith(MARK)] == [f"lr: 0.5{MARK}"]


def test_what_is_printed_for_hydra_alone_is_not_lost(pkt):
    assert "hydra" in pkt("run", "--cfg", "hydra").out
    assert pkt("run", "--cfg", "all").code == 0


LONG = "a text of many words " * 12


@pytest.mark.parametrize(
    "value", [LONG, "x\u2028y", "it's: a 'quoted' one", "#no comment", "[1, 2]", "{a: b}", "null", ""]
)
def test_a_mark_changes_no_value(pkt, value):
    """Whatever a value is, and over however many lines it is printed, it is read back as it was set."""
    words = ["transfer", f"model.name={json.dumps(value, ensure_ascii=False)}", "--cfg", "job"]
    done = pkt(*words)
    assert done.code == 0, done.err
    assert yaml.safe_load(done.out)["model"]["name"] == value
    assert yaml.safe_load(done.out)["verb"] == "transfer"
