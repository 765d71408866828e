"""An artifact is believed to the last bit, never lost by a kill, and reused where nothing can be written."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

import pkt.store
from pkt import inventory
from pkt.errors import PktError
from pkt.manifest import content_key, verified
from pkt.store import Store

KEY = content_key({"a": 1})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    with made.lock("transfer", KEY), made.write("transfer", KEY, ingredients={"stage": "transfer"}) as draft:
        (draft.folder / "model").mkdir()
        (draft.folder / "model" / "weights.json").write_text("[1, 2, 3]")
        (draft.folder / "model" / "README.md").write_text("a card")
    return made


def test_every_flipped_bit_of_a_manifest_is_noticed(store):
    """At ae6e05f half of them were not."""
    manifest = store.path("transfer", KEY) / "manifest.json"
    whole, believed = manifest.read_bytes(), []
    for place in range(0, 8 * len(whole), 7):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        manifest.write_bytes(changed)
        if store.peek("transfer", KEY) is not None:
            believed.append(place)
    assert believed == []
    manifest.write_bytes(whole)
    assert store.peek("transfer", KEY) is not None


def test_peeking_moves_nothing(store):
    (store.path("transfer", KEY) / "model" / "weights.json").write_text("[1, 2, 4]")
    before = sorted(store.root.rglob("*"))
    assert store.peek("transfer", KEY) is None
    assert sorted(store.root.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["model/generation_config.json", "extra.safetensors", "model/chat_template.jinja"]
)
def test_a_stranger_that_would_be_loaded_is_noticed_and_a_note_is_not(store, name):
    path = store.path("transfer", KEY)
    (path / "model" / "weights.gguf").write_text("converted here by the user")
    (path / "notes.md").write_text("mine")
    assert store.read("transfer", KEY) is not None
    (path / name).write_text("{}")
    assert store.read("transfer", KEY) is None


def test_an_artifact_under_another_stage_or_key_is_not_believed(store):
    store.path("transfer", KEY).rename(store.root / "transfer" / ("0" * 16))
    assert store.read("transfer", "0" * 16) is None
    (store.root / "eval").mkdir()
    with store.write("align", KEY) as draft:
        (draft.folder / "x").write_text("x")
    store.path("align", KEY).rename(store.root / "eval" / KEY)
    assert store.read("eval", KEY) is None


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_kill_while_a_card_is_replaced_loses_nothing(store, monkeypatch, written):
    """The manifest goes first and allows both; at ae6e05f a kill between the two writes cost the checkpoint."""
    real, done = pkt.store.write_atomically, []

    def until(path, content):
        if len(done) == written:
            raise KeyboardInterrupt
        done.append(path.name)
        real(path, content)

    artifact = store.read("transfer", KEY)
    assert artifact is not None
    for text in ("a longer card", "another card"):
        done.clear()
        monkeypatch.setattr(pkt.store, "write_atomically", until)
        with contextlib.suppress(KeyboardInterrupt):
            store.replace(artifact, "model/README.md", text)
        assert store.peek("transfer", KEY) is not None
    monkeypatch.setattr(pkt.store, "write_atomically", real)
    store.replace(artifact, "model/README.md", "the last card")
    assert (artifact.path / "model" / "README.md").read_text() == "the last card"
    assert verified(artifact.path)


def test_an_error_that_says_nothing_about_the_file_moves_nothing(store, monkeypatch):
    def fail(path):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(pkt.store, "verified", fail)
    with pytest.raises(PktError, match="it may be whole"):
        store.read("transfer", KEY)
    assert store.path("transfer", KEY).is_dir()


def test_input_output_errors_are_about_the_disk(store):
    with pytest.raises(PktError, match=r"cannot write .* Input/output error"), store.write("align", KEY):
        raise OSError(5, "Input/output error")


@pytest.fixture
def read_only(store):
    """The store where nobody can write: a read-only mount for root, rights for others."""
    root = store.root
    if os.geteuid():
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        yield store
        for folder in folders:
            folder.chmod(0o755)
        return
    for words in (["mount", "--bind", root, root], ["mount", "-o", "remount,bind,ro", root]):
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
    yield store
    subprocess.run(["umount", root], check=True)


def test_a_complete_artifact_is_reused_where_nothing_can_be_written(read_only, caplog):
    artifact = read_only.peek("transfer", KEY)
    assert artifact is not None
    read_only.replace(artifact, "model/README.md", "a card with scores")  # it stays as it is
    assert (artifact.path / "model" / "README.md").read_text() == "a card"
    assert list(inventory.damages(read_only.root, [])) == []
    with pytest.raises(PktError, match=r"Read-only|denied"), read_only.lock("align", KEY):
        pass


def test_what_is_damaged_where_nothing_can_be_written_is_refused_in_words(store, request):
    (store.path("transfer", KEY) / "model" / "weights.json").write_text("[1]")
    read_only = request.getfixturevalue("read_only")
    with pytest.raises(PktError, match=r"is damaged .* and cannot be moved"):
        read_only.read("transfer", KEY)
