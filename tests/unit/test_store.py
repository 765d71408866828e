"""The store: complete or absent, verified, one process computes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pkt.errors import PktError
from pkt.inventory import leftovers, remove
from pkt.manifest import content_key
from pkt.store import Store

KEY = content_key({"a": 1})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, text: str = "weights", key: str = KEY) -> None:
    with store.write("align", key) as draft:
        (draft.folder / "deep").mkdir()
        (draft.folder / "deep" / "map.bin").write_text(text)
        draft.note({"seconds": 0.5})


def names(store: Store) -> set[str]:
    return {path.name for path in (store.root / "align").iterdir() if not path.name.endswith(".lock")}


def test_key_ignores_order_and_sees_values():
    assert content_key({"a": 1, "b": (1, 2)}) == content_key({"b": [1, 2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5})
    assert len(KEY) == 16


def test_key_refuses_what_has_no_canonical_form():
    with pytest.raises(TypeError):
        content_key({"a": object()})


def test_round_trip(store: Store):
    assert store.read("align", KEY) is None
    put(store)
    artifact = store.read("align", KEY)
    assert artifact is not None
    assert artifact.key == KEY
    assert artifact.meta == {"seconds": 0.5}
    assert (artifact.path / "deep" / "map.bin").read_text() == "weights"
    assert names(store) == {KEY}


def test_size_is_what_the_files_take(store: Store):
    with store.write("align", "k1") as draft:
        (draft.folder / "a.bin").write_bytes(b"12345")
        (draft.folder / "in").mkdir()
        (draft.folder / "in" / "b.bin").write_bytes(b"678")
    artifact = store.read("align", "k1")
    assert artifact is not None
    assert artifact.size == 8


def test_writing_again_replaces(store: Store):
    put(store)
    put(store, "other")
    assert (store.path("align", KEY) / "deep" / "map.bin").read_text() == "other"
    assert names(store) == {KEY}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_failure(store: Store, error: type[BaseException]):
    def fail() -> None:
        with store.write("align", KEY) as draft:
            (draft.folder / "half").write_text("x")
            raise error

    with pytest.raises(error):
        fail()
    assert store.read("align", KEY) is None
    assert names(store) == set()


def test_failure_keeps_the_artifact_that_was_there(store: Store):
    put(store)
    with pytest.raises(ValueError, match="boom"), store.write("align", KEY):
        raise ValueError("boom")
    assert store.read("align", KEY) is not None


@pytest.mark.parametrize("damage", ["change", "truncate", "remove", "manifest", "no manifest", "key", "list"])
def test_corrupted_artifact_is_moved_aside(store: Store, damage: str, caplog: pytest.LogCaptureFixture):
    put(store)
    path = store.path("align", KEY)
    file, manifest = path / "deep" / "map.bin", path / "manifest.json"
    match damage:
        case "change":
            file.write_text("weighty")
        case "truncate":
            file.write_text("")
        case "remove":
            file.unlink()
        case "manifest":
            manifest.write_text("{")
        case "no manifest":
            manifest.unlink()
        case "list":
            manifest.write_text("[]")
        case "key":
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"key": "0" * 16}))
    assert store.read("align", KEY) is None
    assert "computed anew" in caplog.text
    (aside,) = names(store)
    assert aside.startswith(f"{KEY}.corrupt-")
    put(store)
    assert store.read("align", KEY) is not None


def test_another_format_counts_as_missing(store: Store):
    put(store)
    manifest = store.path("align", KEY) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 0}))
    assert store.read("align", KEY) is None
    put(store)
    assert store.read("align", KEY) is not None


def test_replace_keeps_the_artifact_valid(store: Store):
    put(store)
    artifact = store.read("align", KEY)
    assert artifact is not None
    with store.lock("align", KEY):  # a process may already hold it
        store.replace(artifact, "deep/map.bin", "longer than before")
    again = store.read("align", KEY)
    assert again is not None
    assert (again.path / "deep" / "map.bin").read_text() == "longer than before"


def killed_while_removing(monkeypatch) -> None:
    """Let a removal do nothing, as where the process dies at its first file."""
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)


def test_state_is_never_half_there(store: Store, monkeypatch):
    (store.partial("align", KEY) / "step").write_text("7")
    killed_while_removing(monkeypatch)
    with store.write("align", KEY):
        pass
    assert not list(store.root.rglob("*.partial"))
    monkeypatch.undo()
    with store.lock("align", KEY):  # as the next process does
        pass
    assert not list(store.root.rglob("step"))


def test_pruned_state_is_never_half_there(store: Store, monkeypatch):
    (store.partial("align", KEY) / "step").write_text("7")
    (state,) = [one for one in leftovers(store.root) if one.path.name.endswith(".partial")]
    killed_while_removing(monkeypatch)
    assert remove(state)
    assert not list(store.root.rglob("*.partial"))


def test_partial_state_lives_until_success(store: Store):
    (store.partial("align", KEY) / "step").write_text("7")
    with pytest.raises(ValueError, match="stop"), store.write("align", KEY):
        raise ValueError("stop")
    assert (store.partial("align", KEY) / "step").read_text() == "7"
    put(store)
    assert names(store) == {KEY}


def test_stale_folders_go_when_the_lock_is_taken(store: Store):
    put(store)
    stale = store.root / "align" / f"{KEY}.tmp-1-2"
    stale.mkdir()
    other = store.root / "align" / f"{'f' * 16}.tmp-1-2"
    other.mkdir()
    with store.lock("align", KEY):
        assert not stale.exists()
    assert other.exists()


def test_kill_between_two_renames_is_repaired(store: Store):
    put(store)
    store.path("align", KEY).rename(store.root / "align" / f"{KEY}.old-1-2")
    with store.lock("align", KEY):
        assert store.read("align", KEY) is not None


@pytest.mark.parametrize("enter", [lambda s: s.lock("align", KEY), lambda s: s.write("align", KEY)])
def test_unwritable_place_is_one_message(tmp_path: Path, enter):
    (tmp_path / "file").write_text("")
    with pytest.raises(PktError, match=r"cannot write .*PKT_OUTPUT_DIR"), enter(Store(tmp_path / "file")):
        pass
    with pytest.raises(PktError, match="cannot write"):
        Store(tmp_path / "file").partial("align", KEY)


def test_full_disk_is_one_message(store: Store):
    with pytest.raises(PktError, match="No space left"), store.write("align", KEY):
        raise OSError(28, "No space left on device")
    assert names(store) == set()


WORKER = f"""
import sys
from pathlib import Path
from pkt.manifest import content_key
from pkt.store import Store
store = Store(Path(sys.argv[1]))
with store.lock("align", "{KEY}"):
    if store.read("align", "{KEY}") is None:
        with store.write("align", "{KEY}") as draft:
            (draft.folder / "who").write_text("x")
            print("computing", flush=True)
            sys.stdin.read()
        print("computed", flush=True)
    else:
        print("reused", flush=True)
"""


def worker(store: Store) -> subprocess.Popen[str]:
    """A process that computes until its input is closed."""
    command, pipe = [sys.executable, "-c", WORKER, str(store.root)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_second_process_waits_and_reuses(store: Store):
    with worker(store) as first, worker_after(first, store) as second:
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        assert first.communicate()[0] == "computed\n"
        assert second.communicate()[0] == "reused\n"


def worker_after(first: subprocess.Popen[str], store: Store) -> subprocess.Popen[str]:
    assert first.stdout is not None
    assert first.stdout.readline() == "computing\n"
    return worker(store)


def test_killed_process_leaves_nothing_that_counts(store: Store):
    with worker(store) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "computing\n"
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert any(".tmp-" in name for name in names(store))
    with worker(store) as second:  # where the lock outlived its holder, the test's own time limit ends this
        out, _ = second.communicate()
    assert out == "computing\ncomputed\n"
    assert names(store) == {KEY}


def test_a_failed_artifact_leaves_no_empty_folder_for_resumable_state(store: Store):
    def refuse() -> None:
        with store.write("align", KEY):
            store.partial("align", KEY)
            raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        refuse()
    assert not any((store.root / "align").glob("*.partial"))
