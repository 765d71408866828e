"""Declared roles reach every stage: a model class that pkt does not know, through every verb and the next request."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from tiny import tiny_config, tiny_tokenizer

pytestmark = pytest.mark.slow

PARROT = """
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

class ParrotConfig(LlamaConfig):
    model_type = "parrot"

class ParrotForCausalLM(LlamaForCausalLM):
    config_class = ParrotConfig

AutoConfig.register("parrot", ParrotConfig, exist_ok=True)
AutoModelForCausalLM.register(ParrotConfig, ParrotForCausalLM, exist_ok=True)
"""


@pytest.fixture
def parrots(tmp_path, monkeypatch, tiny_request):
    """Return words of a request for a pair of parrots, without roles."""
    package = tmp_path / "site"
    package.mkdir()
    (package / "parrot_model.py").write_text(PARROT, encoding="utf-8")
    monkeypatch.syspath_prepend(str(package))
    import parrot_model

    words = [word for word in tiny_request if ".checkpoint=" not in word]
    for seed, (role, sizes) in enumerate((("teacher", {"depth": 6, "width": 48}), ("student", {}))):
        torch.manual_seed(seed)
        config = parrot_model.ParrotConfig(
            **tiny_config("llama", **sizes).to_dict() | {"model_type": "parrot"}
        )
        parrot_model.ParrotForCausalLM(config).save_pretrained(tmp_path / role)
        tiny_tokenizer().save_pretrained(tmp_path / role)
        words.append(f"model.{role}.checkpoint={tmp_path / role}")
    yield [*words, "plugins=[parrot_model]"]
    sys.modules.pop("parrot_model", None)


ROLES = ["model.teacher.roles.like=llama", "model.student.roles.like=llama"]


def last(pkt, name):
    return max(pkt.outputs.glob(f"store/{name}"), key=lambda path: path.stat().st_mtime_ns)


def test_every_verb_and_the_next_request(pkt, parrots):
    first = pkt("run", *parrots, *ROLES)
    assert first.code == 0, first.err
    saved = last(pkt, "transfer/*/model")
    assert json.loads((saved / "config.json").read_text())["pkt_roles"] == {"like": "llama"}
    scored = pkt("eval", *parrots, *ROLES, f"eval.checkpoint={saved}", "eval.models=[transferred]")
    assert scored.code == 0, scored.err
    assert pkt("analyze", "cka", *parrots, *ROLES, f"eval.checkpoint={saved}").code == 0
    again = pkt("transfer", *parrots, "model.teacher.roles.like=llama", f"model.student.checkpoint={saved}")
    assert again.code == 0, again.err  # a saved student needs no declaration
    both = pkt("extract", *parrots, f"model.teacher.checkpoint={saved}", f"model.student.checkpoint={saved}")
    assert both.code == 0, both.err
    cut = ["model.student.init=prune", "model.student.checkpoint=null", "model.student.layers=[2,4]"]
    assert pkt("transfer", "method=sft", *parrots, f"model.teacher.checkpoint={saved}", *cut).code == 0


def test_without_roles_it_says_what_to_set(pkt, parrots):
    refused = pkt("run", *parrots)
    assert refused.code == 2
    assert "does not know the model type 'parrot'" in refused.err
    assert "model.teacher.roles.like=llama" in refused.err


def test_a_checkpoint_of_an_older_version_takes_the_students_roles(pkt, parrots):
    assert pkt("transfer", "method=sft", *parrots, *ROLES).code == 0
    saved = last(pkt, "transfer/*/model")
    config = json.loads((saved / "config.json").read_text())
    del config["pkt_roles"]
    foreign = saved.parents[3] / "foreign"
    foreign.mkdir()
    for file in saved.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    (foreign / "config.json").write_text(json.dumps(config))
    words = ["method=sft", *parrots, *ROLES, f"eval.checkpoint={foreign}"]
    assert pkt("eval", *words, "eval.models=[transferred]").code == 0


@pytest.mark.parametrize("update", ["lora", "full"])
def test_a_float16_student_trains(pkt, tiny_request, update):
    words = [word for word in tiny_request if not word.startswith("model.student.dtype")]
    chosen = ["method=semalign_joint", f"method.update.kind={update}", "model.student.dtype=float16"]
    done = pkt("run", *words, *chosen)
    assert done.code == 0, done.err
    model = AutoModelForCausalLM.from_pretrained(last(pkt, "transfer/*/model"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
