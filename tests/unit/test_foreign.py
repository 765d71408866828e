"""Damaged models and failing machines: the message names the file and what to do, never a library's exception alone."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import struct
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    CLIPTextConfig,
    LlavaConfig,
    T5Config,
)

from pkt.config import CheckpointSpec
from pkt.errors import PktError, RequestError
from pkt.faults import faults
from pkt.foreign import foreign, machine_fault, network_errors
from pkt.models.hub import explained
from pkt.models.load import load_config, load_model, load_tokenizer
from pkt.models.source import Source
from tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 16060522496\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    tiny_model("llama", depth=2).save_pretrained(folder / "whole")
    tiny_model("llama", depth=2).save_pretrained(folder / "sharded", max_shard_size="20KB")
    for name in ("whole", "sharded"):
        tiny_tokenizer().save_pretrained(folder / name)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved / "whole", tmp_path / "model")


@pytest.fixture
def sharded(saved, tmp_path):
    return shutil.copytree(saved / "sharded", tmp_path / "shards")


def loaded(path: Path) -> None:
    """Read everything that a request reads of a model."""
    spec = CheckpointSpec(checkpoint=str(path), dtype="float32")
    load_config(spec)
    load_tokenizer(spec)
    load_model(spec)


def read(path: Path) -> None:
    """Read a model as a request does: its files are looked at first, for some libraries pass over damage."""
    with foreign("the teacher", path):
        loaded(path)
        raise ValueError(faults(path))


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def changed(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def header_only(file: Path, header: bytes) -> None:
    file.write_bytes(struct.pack("<Q", len(header)) + header)


WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
DAMAGES = {
    "weights cut in the data": (WEIGHTS, lambda f: cut(f, f.stat().st_size - 1000), "1,000 of"),
    "weights cut in the header": (WEIGHTS, lambda f: cut(f, 100), "cut off"),
    "weights cut in the length": (WEIGHTS, lambda f: cut(f, 5), "cut off"),
    "weights empty": (WEIGHTS, lambda f: cut(f, 0), "empty"),
    "weights a pointer": (WEIGHTS, lambda f: f.write_bytes(POINTER), "git lfs pull"),
    "weights a web page": (WEIGHTS, lambda f: f.write_bytes(b"<!DOCTYPE html><html>404</html>"), "web page"),
    "weights a pickle": (WEIGHTS, lambda f: torch.save({"a": torch.ones(2)}, f), "pickle"),
    "weights too long": (WEIGHTS, lambda f: f.write_bytes(f.read_bytes() + b"more"), "4 bytes more"),
    "weights with garbage for a header": (
        WEIGHTS,
        lambda f: header_only(f, b"\xff\xfe{]" * 9),
        "damaged header",
    ),
    "weights with a list for a header": (WEIGHTS, lambda f: header_only(f, b"[1, 2]"), "damaged header"),
    "weights with a hole": (
        WEIGHTS,
        lambda f: header_only(f, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'),
        "damaged header",
    ),
    "config empty": (CONFIG, lambda f: cut(f, 0), "empty"),
    "config cut": (CONFIG, lambda f: cut(f, 120), "not JSON"),
    "config a list": (CONFIG, lambda f: f.write_text("[1]"), "list"),
    "config binary": (CONFIG, lambda f: f.write_bytes(bytes(range(256))), "UTF-8"),
    "config a pointer": (CONFIG, lambda f: f.write_bytes(POINTER), "git lfs pull"),
    "config of no type": (CONFIG, lambda f: f.write_text("{}"), "config.json"),
    "config of an unknown type": (CONFIG, lambda f: changed(f, model_type="zork"), "config.json"),
    "config with words for numbers": (CONFIG, lambda f: changed(f, hidden_size="wide"), "config.json"),
    "config of another model": (CONFIG, lambda f: changed(f, intermediate_size=99), "mlp"),
    "config of another vocabulary": (CONFIG, lambda f: changed(f, vocab_size=99), "by the config 99x32"),
    "config nested too deep": (CONFIG, lambda f: f.write_text('{"a":' * 100_000), "not JSON"),
    "config that is quantised": (
        CONFIG,
        lambda f: changed(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantised",
    ),
    "config with code of its own": (
        CONFIG,
        lambda f: changed(f, model_type="zork", auto_map={"AutoConfig": "own.Config"}),
        "code of its own",
    ),
    "config without layers": (CONFIG, lambda f: changed(f, num_hidden_layers=-1), "num_hidden_layers=-1"),
    "config with an unknown function": (CONFIG, lambda f: changed(f, hidden_act="nope"), "cannot be made"),
    "weights under another name": (WEIGHTS, lambda f: f.rename(f.with_name("weights.safetensors")), "rename"),
    "generation config cut": ("generation_config.json", lambda f: cut(f, 10), "not JSON"),
    "tokenizer empty": (TOKENIZER, lambda f: cut(f, 0), "empty"),
    "tokenizer cut": (TOKENIZER, lambda f: cut(f, 500), "not JSON"),
    "tokenizer without a model": (TOKENIZER, lambda f: f.write_text('{"version": "1.0"}'), "tokenizer.json"),
    "tokenizer a pointer": (TOKENIZER, lambda f: f.write_bytes(POINTER), "git lfs pull"),
    "tokenizer config binary": ("tokenizer_config.json", lambda f: f.write_bytes(b"\0\xff"), "UTF-8"),
    "template broken": (
        "chat_template.jinja",
        lambda f: f.write_text("{% for m in messages %}{{ m }"),
        "line 1",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named(folder, name):
    file, damage, said = DAMAGES[name]
    damage(folder / file)
    with pytest.raises(RequestError) as refused:
        read(folder)
    assert file in str(refused.value)
    assert said in str(refused.value)


def test_a_folder_without_a_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(RequestError, match="has no tokenizer"):
        read(folder)


def test_a_tokenizer_without_its_vocabulary_is_told_as_that(folder):
    (folder / TOKENIZER).unlink()
    with pytest.raises(
        PktError, match=r"has no tokenizer\.json, and without it its tokenizer cannot be made"
    ):
        loaded(folder)


def test_weights_that_the_config_has_no_place_for_are_told(folder, caplog):
    changed(folder / CONFIG, num_hidden_layers=1)
    loaded(folder)
    (record,) = [record for record in caplog.records if record.name.startswith("pkt")]
    assert re.search(r"has 9 weights .* such as model\.layers\.1\..*: they are not used", record.getMessage())


def test_sound_models_have_no_fault(folder, sharded):
    (folder / "chat_template.jinja").write_text(
        CHAT_TEMPLATE + "{% for m in [] %}{%- generation -%}x{%- endgeneration -%}{% break %}{% endfor %}"
    )
    (folder / "trainer_state.json").write_text("{cut off")  # nobody reads it
    (folder / "consolidated.safetensors").write_bytes(b"another format")
    assert faults(folder) == []
    assert faults(sharded) == []
    loaded(folder)


def test_shards(sharded):
    index = sharded / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    tensor, shard = next(iter(places.items()))
    moved = (sharded / shard).rename(sharded.parent / "away")
    with pytest.raises(RequestError, match=rf"lacks 1 of the \d+ files .*{shard}"):
        loaded(sharded)
    tensors = load_file(moved)
    del tensors[tensor]
    save_file({**tensors, "other": torch.ones(1)}, sharded / shard, metadata={"format": "pt"})
    assert "names 1 tensors that its files do not hold, such as " + tensor in faults(sharded)[0]
    shutil.copy(moved, sharded / shard)
    index.unlink()
    with pytest.raises(RequestError, match=r"no model\.safetensors\.index\.json"):
        loaded(sharded)


def test_an_adapter_beside_weights_is_not_followed(folder):
    (folder / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "/no/such", "peft_type": "LORA"}'
    )
    with pytest.raises(RequestError, match=r"adapter_config\.json is a PEFT adapter beside a whole model"):
        loaded(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (T5Config(), "encoder and a decoder"),
        (BertConfig(), "is an encoder"),
        (CLIPTextConfig(), "no causal language model"),
        (LlavaConfig(), "save that alone"),
    ],
)
def test_other_kinds_of_models(tmp_path, config, said):
    config.save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=said):
        load_config(CheckpointSpec(checkpoint=str(tmp_path)))


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"garbage" * 99, POINTER, b"GGUF" + bytes(200), b"GGUF\3\0\0\0" + b"\x01" * 99]
)
def test_a_damaged_gguf_file_is_named(tmp_path, content):
    pytest.importorskip("gguf")
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    for load in (load_config, load_tokenizer, load_model):
        with pytest.raises(RequestError, match=r"model\.gguf (is|cannot be read)"):
            load(CheckpointSpec(checkpoint=str(file)))


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_file_that_may_not_be_read(folder):
    (folder / WEIGHTS).chmod(0)
    assert "chmod" in faults(folder)[0]


def raised(error: BaseException) -> BaseException:
    """Return an exception with another one as its cause."""
    try:
        raise RuntimeError("in a library") from error
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left", "/x/y"), "/x/y: no space is left"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "no space",
        ),
        (OSError(errno.EDQUOT, "quota"), "no space is left on the disk; free some"),  # whose is not known
        (PermissionError(errno.EACCES, "denied", "/x"), "/x: permission is denied"),
        (OSError(errno.EROFS, "read-only"), "only be read"),
        (OSError(errno.EIO, "io"), "input/output error"),
        (OSError(errno.EMFILE, "many"), "ulimit"),
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), "batch_size"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4 bytes"),
            "batch_size",
        ),
    ],
)
def test_the_machine(error, said):
    for each in (error, raised(error)):
        assert said in machine_fault(each)
        with pytest.raises(PktError, match=said) as told, foreign("writing"):
            raise each
        assert told.value.exit_code == 1


def test_what_cannot_be_told_is_told_in_the_librarys_words(folder):
    assert machine_fault(ValueError("x")) is None
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:64137.")
    for error in (gone, torch.distributed.DistBackendError("NCCL communicator was aborted")):
        assert "another process of this request has ended" in machine_fault(error)
    with (
        pytest.raises(PktError, match=r"the teacher: ValueError: odd.*; try another") as told,
        foreign("the teacher", folder, "try another"),
    ):
        raise ValueError("odd\nlines")
    assert told.value.exit_code == 1
    with pytest.raises(RequestError, match=r"^mine$"), foreign("the teacher", folder):
        raise RequestError("mine")
    with pytest.raises(KeyboardInterrupt), foreign("the teacher", folder):
        raise KeyboardInterrupt


@pytest.fixture
def unreachable() -> Exception:
    """Return what the hub's client raises where nobody listens."""
    from huggingface_hub import HfApi

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        hub = HfApi(endpoint=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(network_errors()) as caught:
            hub.model_info("org/name")
    return caught.value


def test_a_connection_that_breaks_is_not_held_against_the_model(unreachable):
    source = Source(who="teacher", kind="hub", name="org/name", revision="main", path=None)
    with (
        pytest.raises(PktError, match=r"the teacher 'org/name' .* is not available") as told,
        explained(source),
    ):
        raise unreachable
    assert "try another checkpoint" not in str(told.value)
