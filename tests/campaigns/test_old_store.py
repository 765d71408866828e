"""A store that an earlier version of pkt wrote (format 2, without checksums over manifests and snapshots)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from campaigns import tiny_work
from pkt.cli import main
from pkt.inventory import artifacts, damages
from pkt.manifest import MANIFEST
from pkt.store import Store

OLD = Path(__file__).resolve().parents[1] / "assets" / "store_format_2"


def old_manifest(stage: str) -> tuple[Path, dict]:
    (file,) = (OLD / stage).glob(f"*/{MANIFEST}")
    return file.parent, json.loads(file.read_text())


@pytest.mark.parametrize("stage", ["extract", "align", "transfer", "eval"])
def test_an_artifact_of_an_earlier_format_is_missing_and_not_damaged(tmp_path, stage, caplog):
    shutil.copytree(OLD, tmp_path / "store")
    store, (folder, manifest) = Store(tmp_path / "store"), old_manifest(stage)
    assert manifest["format"] == 2
    assert store.peek(stage, folder.name) is None
    assert store.read(stage, folder.name) is None
    assert (store.root / stage / folder.name).is_dir()
    assert caplog.text == ""
    assert {one.state for one in artifacts(store.root)} == {"another format"}
    told = [path for path, _ in damages(store.root, [])]
    assert {path.name for path in told} == {"state.json", "sensitivity.json"}  # what nobody goes on from


@pytest.mark.slow
def test_old_results_and_old_state_under_the_right_keys_change_no_result(tmp_path, capfd, monkeypatch):
    """Whatever is asked for, the old folders are put under just those keys."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "new"
    root.mkdir()
    tiny_work.pair(root)
    tiny_work.command("run", root)
    wanted = tiny_work.digest(root / "outputs")
    keys = {one.stage: one.key for one in artifacts(root / "outputs" / "store")}
    shutil.rmtree(root / "outputs")
    for stage, key in keys.items():
        folder, manifest = old_manifest(stage)
        place = root / "outputs" / "store" / stage / key
        shutil.copytree(folder, place)
        (place / MANIFEST).write_text(json.dumps(manifest | {"key": key}, indent=1))
        for partial in (OLD / stage).glob("*.partial"):
            shutil.copytree(partial, place.with_name(f"{key}.partial"))
    assert main(["run", *tiny_work.request(root), f"output_dir={root / 'outputs'}"]) == 0
    assert tiny_work.digest(root / "outputs") == wanted
    told = capfd.readouterr()
    assert "sensitivity.json cannot be used" in told.out + told.err
    assert "snapshot cannot be used" in told.out + told.err
