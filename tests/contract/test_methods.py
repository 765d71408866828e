"""Every method x every invariant, on random tiny pairs of several families, through the command line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tiny import tiny_model, tiny_tokenizer

METHODS = ("semalign", "semalign_joint", "sft")
FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2")


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Folders of a teacher and a student per family."""
    made = {}
    for family in FAMILIES:
        root = tmp_path_factory.mktemp(family)
        tiny_model(family, depth=6, width=48, seed=1).save_pretrained(root / "teacher")
        tiny_model(family, depth=4, width=32, seed=2).save_pretrained(root / "student")
        for role in ("teacher", "student"):
            tiny_tokenizer().save_pretrained(root / role)
        made[family] = root
    return made


def request(families, tiny_request, family: str, method: str, *more: str) -> list[str]:
    root = families[family]
    chosen = [f"model.teacher.checkpoint={root / 'teacher'}", f"model.student.checkpoint={root / 'student'}"]
    return [f"method={method}", *tiny_request, *chosen, *more]


def weights(outputs) -> dict[str, torch.Tensor]:
    (folder,) = (outputs / "store" / "transfer").glob("*/model")
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_only_the_declared_layers_change(pkt, families, tiny_request, family, method):
    more = ["method.layers=[2]"] if method == "sft" else ["mapping=explicit", "mapping.layers=[[3,2]]"]
    result = pkt("transfer", *request(families, tiny_request, family, method, *more))
    assert result.code == 0, result.err
    before, after = load_file(families[family] / "student" / "model.safetensors"), weights(pkt.outputs)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".1." in name for name in changed), changed


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_finite_in_bfloat16_and_saved_in_it(pkt, families, tiny_request, family, method, kind):
    more = [f"method.update.kind={kind}", "model.teacher.dtype=bfloat16", "model.student.dtype=bfloat16"]
    result = pkt("transfer", *request(families, tiny_request, family, method, *more))
    assert result.code == 0, result.err
    for name, value in weights(pkt.outputs).items():
        assert value.dtype == torch.bfloat16, name
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize("method", METHODS)
def test_a_vanishing_learning_rate_leaves_the_student_as_it_is(pkt, families, tiny_request, method):
    result = pkt("transfer", *request(families, tiny_request, "llama", method, "optim.lr=1e-30"))
    assert result.code == 0, result.err
    before, after = load_file(families["llama"] / "student" / "model.safetensors"), weights(pkt.outputs)
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("interface", ["mlp", "attention", "residual", "block"])
@pytest.mark.parametrize("semantics", ["cosine", "ridge", "input", "random"])
def test_every_interface_with_every_map(pkt, families, tiny_request, interface, semantics):
    more = [f"method.interface={interface}", f"semantics={semantics}", "optim.epochs=1"]
    result = pkt("transfer", *request(families, tiny_request, "llama", "semalign", *more))
    assert result.code == 0, result.err


@pytest.mark.parametrize("options", [["semantics.fold_norm=true"], ["semantics.anchors=shared"]])
def test_options_of_the_vocabulary_map(pkt, families, tiny_request, options):
    result = pkt("align", *request(families, tiny_request, "llama", "semalign", *options))
    assert result.code == 0, result.err
    assert "explained_variance" in result.out
