"""Students whose layers are of several kinds, or whose numbers are float16; roles in words and in what is saved."""

from __future__ import annotations

import copy

import pytest
import torch

from campaigns.tiny_families import guessed_roles, tiny_family
from pkt.config import CheckpointSpec, PairConfig
from pkt.errors import RequestError
from pkt.models.architecture import Architecture
from pkt.models.fingerprint import fingerprint
from pkt.models.pair import load_checkpoint, load_student, load_teacher
from pkt.training.trainable import Update, make_trainable
from pkt.words import hydra_words
from tiny import tiny_model, tiny_tokenizer

IDS = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))


def adapted(family: str, layers: list[int], targets: list[str]) -> set[str]:
    """Return the modules that get adapters, without the path of the stack."""
    model = tiny_family(family)
    arch = Architecture.of(model, guessed_roles(model))
    trainable = make_trainable(arch, Update(rank=2, alpha=2, targets=targets), layers)
    return {name.removeprefix("model.layers.").partition(".lora_")[0] for name in trainable.parameters}


def test_each_layer_gets_the_projections_that_it_has(capfd):
    assert adapted("jamba", [2, 3], ["o", "up", "down"]) == {
        "1.mamba.out_proj",  # this layer's MLP is a mixture of experts
        "2.mamba.out_proj",
        "2.feed_forward.up_proj",
        "2.feed_forward.down_proj",
    }
    assert "no up in layers 2; no down in layers 2" in capfd.readouterr().err


def test_adapters_stay_in_the_chosen_layer_where_peft_translates_names():
    assert adapted("mixtral", [3], ["v", "o"]) == {"2.self_attn.v_proj", "2.self_attn.o_proj"}


@pytest.mark.parametrize(
    ("family", "layers", "targets", "says"),
    [
        (
            "mixtral",
            [1],
            ["up", "down", "v", "o"],
            r"no projection 'up'; they have q, k, v, o.*targets=\[q,k,v,o\]",
        ),
        (
            "jamba",
            [2],
            ["up"],
            r"layer 2 .* no linear map up \(feed_forward\.up_proj\).*targets=\[o\].*kind=full",
        ),
        ("glm4_moe", [1], ["up", "down"], r"peft puts no adapters on exactly these.*targets=\[q,k,v,o\]"),
    ],
)
def test_what_has_no_adapter_names_what_to_set(family, layers, targets, says):
    with pytest.raises(RequestError, match=says):
        adapted(family, layers, targets)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_float16_student_trains_as_its_float32_twin(kind):
    half = tiny_model("llama").half()
    twin = copy.deepcopy(half).float()
    ends = []
    for model in (half, twin):
        trainable = make_trainable(Architecture.of(model), Update(kind=kind, rank=2, alpha=2), [1, 3], seed=1)
        loss = trainable.model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        with torch.no_grad():
            for parameter in trainable.parameters.values():
                parameter.sub_(0.1 * parameter.grad)
        ends.append(trainable.merged())
    for (name, one), other in zip(ends[0].named_parameters(), ends[1].parameters(), strict=True):
        assert one.dtype == torch.float16, name
        torch.testing.assert_close(one, other.half(), rtol=0, atol=0)


def test_roles_are_an_open_mapping_on_the_command_line():
    words = ["model.teacher.roles.like=llama", "model.student.roles={like: llama}", "seed=1"]
    assert hydra_words("run", words) == [f"++{words[0]}", f"++{words[1]}", "seed=1"]


def test_a_saved_student_keeps_its_roles(tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "one")
    tiny_tokenizer().save_pretrained(tmp_path / "one")
    spec = CheckpointSpec(
        checkpoint=str(tmp_path / "one"), dtype="float32", roles={"mlp_out": "mlp.down_proj"}
    )
    cut = CheckpointSpec(init="prune", layers=[1, 2], dtype="float32")
    pair = PairConfig(name="p", teacher=spec, student=cut)
    load_student(pair, None, "cpu").model.save_pretrained(tmp_path / "two")
    tiny_tokenizer().save_pretrained(tmp_path / "two")
    assert load_checkpoint(tmp_path / "two", "cpu").arch.roles.mlp_out == "mlp.down_proj"
    saved = CheckpointSpec(checkpoint=str(tmp_path / "two"), dtype="float32")
    again = PairConfig(name="p", teacher=saved, student=saved)
    assert load_teacher(again, None, "cpu").arch.roles.mlp_out == "mlp.down_proj"
    assert load_checkpoint(tmp_path / "one", "cpu").arch.roles.mlp_out == "mlp"
    own = load_checkpoint(tmp_path / "one", "cpu", roles=spec.roles)
    assert own.arch.roles.mlp_out == "mlp.down_proj"
    other = CheckpointSpec(init="prune", layers=[1, 2], dtype="float32", roles={"mlp_out": "mlp"})
    assert fingerprint(other, teacher=spec) != fingerprint(cut, teacher=spec)
