"""What is read back: whole or not there, and any other bit is noticed."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from pkt import durable, remembered
from pkt.remembered import recall, remember

CONTENT = {
    "format": 4,
    "é": [1.5e-300, None, True],
    "text": 'a "quoted" \n line',
    "files": {"a.json": {"size": 7}},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=20, database=None, derandomize=True)
@given(st.dictionaries(st.text().filter(lambda key: key != "checksum"), JSON, max_size=4))
def test_what_was_sealed_comes_back(content):
    assert durable.unsealed(durable.sealed(content).encode()) == content


def test_every_flipped_bit_is_noticed():
    text = durable.sealed(CONTENT).encode()
    believed = []
    for place in range(8 * len(text)):
        changed = bytearray(text)
        changed[place // 8] ^= 1 << place % 8
        try:
            durable.unsealed(bytes(changed))
            believed.append(place)
        except ValueError:
            continue
    assert believed == []


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}', b'{"a": 1, "checksum": 0}']
)
def test_what_was_never_sealed_is_refused_as_damage(text):
    with pytest.raises(ValueError, match=r"\w"):
        durable.unsealed(text)


def test_json_without_a_checksum_is_taken_as_it_is_and_with_one_it_has_to_fit(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"a": 1}')
    assert durable.read_json(file) == {"a": 1}
    file.write_text(durable.sealed({"a": 1}))
    assert durable.read_json(file) == {"a": 1}
    file.write_text(durable.sealed({"a": 1}).replace("1", "2", 1))
    with pytest.raises(ValueError, match="checksum does not fit"):
        durable.read_json(file)


def test_a_file_is_synchronised_before_it_takes_its_place_and_the_folder_after(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: done.append(stat.S_ISDIR(os.fstat(handle).st_mode)) or fsync(handle)
    )
    monkeypatch.setattr(os, "replace", lambda *names: done.append("rename") or replace(*names))
    durable.write_atomically(tmp_path / "x", "new")
    assert done == [False, "rename", True]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, failing):
    (tmp_path / "x").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space"):
        durable.write_atomically(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_tree_can_be_read_by_whoever_can_read_its_folder(tmp_path):
    """Safetensors makes files for their owner alone, and a store is shared."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.safetensors").write_text("x")
    (folder / "model.safetensors").chmod(0o600)
    folder.chmod(0o755)
    durable.sync_tree(folder)
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o644


def test_what_is_set_aside_is_told_in_one_line(tmp_path, caplog):
    (tmp_path / "x").write_text("?")
    durable.set_aside(tmp_path / "x", "it was changed", "made anew")
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("x.corrupt-")
    assert len(caplog.records) == 1
    assert "it was changed" in caplog.text
    assert aside.name in caplog.text


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            errno.ENOSPC,
        ),
        (SafetensorError("Error while serializing: IoError(Os { code: 5, kind: Uncategorized })"), errno.EIO),
        (OSError(errno.ENOENT, "not there"), None),
        (SafetensorError("Error while deserializing header: invalid JSON"), None),
        (ValueError("os error 28"), None),
    ],
)
def test_what_the_disk_said(error, number):
    found = durable.disk_error(error)
    assert (found and found.errno) == number


def test_what_is_remembered_is_believed_under_its_own_name_and_whole(tmp_path, caplog):
    first, second = tmp_path / "new" / "a.json", tmp_path / "new" / "b.json"
    assert recall(first, "it is done again") is None
    for file, digest in ((first, "1111"), (second, "2222")):
        remember(file, {"digest": digest})
    assert recall(first, "it is done again") == {"name": "a.json", "digest": "1111"}
    assert not caplog.records
    text = first.read_text()
    for planted in (
        text.replace("1111", "1112"),
        second.read_text(),
        json.dumps({"name": "a.json"}),
        "",
        "[]",
    ):
        first.write_text(planted)
        assert recall(first, "it is done again") is None
        assert "it is done again" in caplog.records.pop().getMessage()
    first.write_text(durable.sealed({"texts": "a", "digest": "1111"}))  # as an earlier version had it
    assert recall(first, "it is done again") is None
    assert not caplog.records


def test_what_cannot_be_kept_is_not_missed(tmp_path):
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file" / "a.json", {"digest": "1111"})
    assert recall(tmp_path / "file" / "a.json", "it is done again") is None


def test_what_a_refused_request_remembered_goes_with_the_folders_that_were_made_for_it(tmp_path):
    remembered.begin()
    before = tmp_path / "store" / "rows" / "a.json"
    remembered.remember(before, {"x": 1})
    remembered.begin()  # another request
    remembered.remember(tmp_path / "store" / "models" / "b.json", {"x": 2})
    remembered.remember(tmp_path / "store" / "rows" / "c.json", {"x": 3})
    remembered.remember(before, {"x": 4})  # was there
    remembered.forget()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.json"]
    assert not (tmp_path / "store" / "models").exists()
    remembered.forget()
    assert before.exists()
