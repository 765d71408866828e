"""Weights and logits that are not numbers are refused, wherever a model comes from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pkt.config import CheckpointSpec
from pkt.errors import PktError, RequestError
from pkt.evaluation.criteria import Numbers, check_numbers
from pkt.manifest import write_manifest
from pkt.models.finite import check_finite
from pkt.models.load import load_model
from pkt.models.pair import check_own, load_checkpoint
from tiny import tiny_model, tiny_tokenizer


class Weights(nn.Module):
    def __init__(self, **values: torch.Tensor) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value, requires_grad=False))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_tensor_and_how_many_are_named(dtype, bad):
    values = torch.ones(3, 4)
    check_finite(Weights(a=values.to(dtype), empty=torch.ones(0)), "it", "Mend it.")
    values[1, 2] = values[2, 0] = bad
    with pytest.raises(PktError, match=r"it has weights that are not finite: 2 of 12 in b\. Mend it\."):
        check_finite(Weights(a=torch.ones(2), b=values.to(dtype)), "it", "Mend it.")
    with pytest.raises(PktError, match=r"2 of 12 in b, and some of 1 more tensor\."):
        check_finite(Weights(b=values.to(dtype), c=values.to(dtype)), "it", "Mend it.")


def test_the_largest_numbers_are_numbers():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        check_finite(Weights(a=torch.full((100_000,), torch.finfo(dtype).max, dtype=dtype)), "it", "")


@pytest.fixture
def poisoned(tmp_path):
    model = tiny_model(depth=2, width=16)
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = torch.nan
    model.save_pretrained(tmp_path / "poisoned")
    tiny_tokenizer().save_pretrained(tmp_path / "poisoned")
    return tmp_path / "poisoned"


def test_a_model_is_refused_when_it_is_loaded(poisoned):
    """At ae6e05f such a model was scored: 0.0 ± 0.0, exit code 0."""
    says = r"teacher .*poisoned' has weights that are not finite: 1 of 512 in model\.layers\.1\.mlp\.up_proj\.weight"
    with pytest.raises(PktError, match=says):
        load_model(CheckpointSpec(checkpoint=str(poisoned), dtype="float32"))
    with pytest.raises(PktError, match=r"the student .*poisoned' has weights that are not finite"):
        load_checkpoint(poisoned, "cpu")


@pytest.mark.slow
def test_eval_refuses_it_as_any_of_the_three_models(pkt, tiny_request, poisoned):
    for words in (
        [f"eval.checkpoint={poisoned}", "eval.models=[transferred]"],
        [f"model.student.checkpoint={poisoned}", "eval.models=[student]"],
        [f"model.teacher.checkpoint={poisoned}", "eval.models=[teacher]"],
    ):
        result = pkt("eval", *tiny_request, *words)
        assert result.code == 1
        assert "1 of 512 in model.layers.1.mlp.up_proj.weight" in result.err
        assert "Traceback" not in result.err
        assert not list(pkt.outputs.glob("store/eval/*/manifest.json"))


def test_logits_that_are_not_numbers_are_no_answer():
    check_numbers(torch.tensor([0.0, -torch.inf, torch.inf]))
    with pytest.raises(PktError, match=r"load it in float32 .*lower optim\.lr"):
        check_numbers(torch.tensor([0.0, torch.nan]))
    with pytest.raises(PktError, match=r"load it in float32 .*lower optim\.lr"):
        Numbers()(torch.zeros(1, 1), torch.tensor([[0.0, torch.nan]]))


def test_a_checkpoint_of_the_store_that_was_changed_is_refused_where_it_is_named(tmp_path):
    folder = tmp_path / "transfer" / ("a" * 16)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "model" / "README.md").write_text("a card")
    write_manifest(folder, "transfer", "a" * 16, {}, {})
    check_own(folder / "model", "eval.checkpoint=x")
    (folder / "model" / "README.md").write_text("the user's words")
    check_own(folder / "model", "eval.checkpoint=x")
    (folder / "model" / "model.safetensors").write_bytes(b"wEights")
    with pytest.raises(
        RequestError, match=r"eval\.checkpoint=x: .*damaged \(model.safetensors is missing or changed\)"
    ):
        check_own(folder / "model", "eval.checkpoint=x")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(RequestError, match="damaged"):
        check_own(folder / "model", "eval.checkpoint=x")
    (folder / "manifest.json").unlink()
    check_own(folder / "model", "eval.checkpoint=x")  # anybody's folder


def test_numbers_that_do_not_fit_into_float16_are_no_damage(tmp_path):
    model = tiny_model(depth=2, width=16)
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = 1e6
    model.save_pretrained(tmp_path / "large")
    tiny_tokenizer().save_pretrained(tmp_path / "large")
    load_model(CheckpointSpec(checkpoint=str(tmp_path / "large"), dtype="bfloat16"))
    with pytest.raises(PktError, match=r"1 of 512 .*do not fit into float16 .*\(model\.teacher\.dtype\)"):
        load_model(CheckpointSpec(checkpoint=str(tmp_path / "large"), dtype="float16"))
