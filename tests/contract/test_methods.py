"""Every method on every family: what changes, what is saved, bfloat16, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matrix import FAMILIES, METHODS, PROJECTIONS, combinations
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from world import logits

from cases import mostly_slow
from pkt.errors import RequestError
from pkt.methods.laten_results import LatenAlignment
from pkt.searchpath import builtin_conf_dir

REFUSED = [(name, family) for name, case in METHODS.items() for family in case.refused]


def loaded(folder: Path, dtype: torch.dtype = torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()


def close(got: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=share * float(expected.abs().max()))


def layer_of(name: str) -> int | None:
    """Number (from 1) of the layer that a parameter is in."""
    for prefix in ("model.layers.", "transformer.h."):
        if name.startswith(prefix):
            return int(name.removeprefix(prefix).split(".")[0]) + 1
    return None


def declared(method: str, name: str, layers: list[int]) -> bool:
    """Whether a method may change a parameter."""
    update = METHODS[method].update
    ends = tuple(end for both in PROJECTIONS.values() for end in both)
    inside = update == "full" or (update in ("lora", "delta") and name.endswith(ends))
    return layer_of(name) in layers and inside


def test_every_config_of_a_method_is_in_the_matrix():
    files = {path.stem for path in (builtin_conf_dir() / "method").glob("*.yaml")}
    assert files == set(METHODS)


@pytest.mark.parametrize(("method", "family"), combinations())
def test_only_declared_parameters_change(world, method, family):
    run, before = world.shared(method, family), load_file(world.student(family) / "model.safetensors")
    case, layers, after = METHODS[method], run.record["layers"], run.weights
    assert layers == list(case.layers) if case.layers is not None else len(layers) == 1
    assert after.keys() == before.keys()  # a tied head stays out of the file
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    may_change = {name for name in after if declared(method, name, layers)}
    assert changed <= may_change
    assert {layer_of(name) for name in changed} == set(layers)
    if case.update == "lora":
        assert changed == may_change
        assert len(changed) == 4 * len(layers)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_laten_changes_no_other_rows_than_its_delta_names(world, family):
    run, before = world.shared("laten", family), load_file(world.student(family) / "model.safetensors")
    for delta in LatenAlignment.load(run.results["align"]).deltas:
        (end, _) = PROJECTIONS[delta.module]
        name = f"model.layers.{delta.layer - 1}.{end}"
        change = run.weights[name] - before[name]
        rows = change if delta.module in ("up", "v") else change.T
        expected = torch.zeros_like(rows)
        expected[delta.index_n] = delta.values_nD
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-6)
        assert not rows[expected.eq(0).all(1)].any()


@pytest.mark.parametrize(("method", "family"), combinations())
def test_the_saved_student_is_the_one_in_memory(world, method, family):
    run = world.shared(method, family)
    model = loaded(run.folder / "model")
    close(logits(model), run.logits, 1e-6)
    untouched = loaded(world.student(family))
    tied = FAMILIES[family].get("tied", False)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert method == "identity" or not torch.equal(logits(untouched), run.logits)
    adapter = run.folder / "adapter"
    assert adapter.is_dir() == (METHODS[method].update == "lora")
    if adapter.is_dir():
        close(logits(PeftModel.from_pretrained(untouched, str(adapter))), run.logits, 1e-5)


@pytest.mark.parametrize(("method", "family"), combinations(METHODS, ("semalign_joint", "laten")))
def test_finite_in_bfloat16_and_saved_in_it(world, tmp_path, method, family):
    run = world.run(method, family, outputs=tmp_path, dtype="bfloat16")
    for name, value in run.weights.items():
        assert value.dtype == torch.bfloat16, name
        assert torch.isfinite(value).all(), name
    assert torch.isfinite(run.logits).all()
    close(logits(loaded(run.folder / "model", torch.bfloat16)), run.logits, 1e-6)
    before = load_file(world.student(family) / "model.safetensors")
    changed = {n for n, value in run.weights.items() if not torch.equal(value, before[n].bfloat16())}
    assert bool(changed) == (method != "identity")
    assert all(declared(method, name, run.record["layers"]) for name in changed)


@pytest.mark.parametrize(("method", "family"), REFUSED)
def test_what_cannot_work_is_refused_before_any_work(world, tmp_path, method, family):
    with pytest.raises(RequestError, match=METHODS[method].refused[family]):
        world.run(method, family, outputs=tmp_path)
    assert not list((tmp_path / "store").glob("*/*/manifest.json"))


@pytest.mark.parametrize(
    ("family", "message"),
    [("qwen3", "input embedding and head are one tensor"), ("gpt2", "no projection 'gate'")],
)
def test_seeking_s_own_recipe_is_refused_where_a_matrix_is_missing(world, tmp_path, family, message):
    more = ("method.recipe=original", "method.update.rank=4")
    with pytest.raises(RequestError, match=message):
        world.run("seeking", family, outputs=tmp_path, settings=more)
    assert not list((tmp_path / "store").glob("*/*/manifest.json"))


@pytest.mark.parametrize("interface", ["mlp", "attention", "residual", "block"])
@pytest.mark.parametrize(
    "semantics", mostly_slow(["cosine", "ridge", "input", "random"], lambda name: name == "ridge")
)
def test_every_interface_with_every_map(world, tmp_path, interface, semantics):
    more = (f"method.interface={interface}", f"semantics={semantics}", "optim.epochs=1")
    run = world.run("semalign", "llama", *more, outputs=tmp_path)
    assert all(torch.isfinite(value).all() for value in run.weights.values())


@pytest.mark.parametrize("options", [["semantics.fold_norm=true"], ["semantics.anchors=shared"]])
def test_options_of_the_vocabulary_map(pkt, tiny_request, options):
    result = pkt("align", "method=semalign", *tiny_request, *options)
    assert result.code == 0, result.err
    assert "explained_variance" in result.out
