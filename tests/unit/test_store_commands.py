"""`pkt store list | verify | prune`: what is told, what goes, and what never does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from pkt.cli import main
from pkt.durable import sealed
from pkt.manifest import content_key
from pkt.store import Store

OLD = 30 * 86400


def put(store: Store, stage: str, name: str, **ingredients) -> str:
    key = content_key({"stage": stage, "name": name, **ingredients})
    with store.lock(stage, key), store.write(stage, key, ingredients=ingredients) as draft:
        (draft.folder / "data.json").write_text(json.dumps(name))
        draft.note({"role": name})
    return key


def age(path: Path, seconds: float = OLD) -> None:
    then = time.time() - seconds
    for inner in [path, *path.rglob("*")]:
        os.utime(inner, (then, then))


@pytest.fixture
def outputs(tmp_path):
    """A checkpoint with what it was made from, scores that a run names, and scores that nobody names; all are old."""
    store = Store(tmp_path / "outputs" / "store")
    keys = {"extract": put(store, "extract", "pairs")}
    keys["transfer"] = put(store, "transfer", "checkpoint", inputs={"extract": keys["extract"]})
    keys["named"] = put(store, "eval", "named")
    keys["alone"] = put(store, "eval", "alone")
    run = tmp_path / "outputs" / "runs" / "run" / "1"
    run.mkdir(parents=True)
    (run / "scores.json").write_text(sealed({"stages": [{"stage": "eval student", "key": keys["named"]}]}))
    age(store.root)
    return tmp_path / "outputs", keys


def there(outputs: Path) -> set[str]:
    return {path.parent.name for path in outputs.glob("store/*/*/manifest.json")}


def store(outputs: Path, *words: str) -> int:
    return main(["store", words[0], f"output_dir={outputs}", *words[1:]])


def test_jobs_of_the_papers_targets_need_their_results_too(outputs):
    folder, keys = outputs
    job = folder / "paper" / "nano" / "table1" / "sft_seed-0"
    job.mkdir(parents=True)
    (job / "scores.json").write_text(sealed({"stages": [{"stage": "eval student", "key": keys["alone"]}]}))
    assert store(folder, "prune", "--yes") == 0
    assert there(folder) == set(keys.values())


def test_list_says_who_needs_what(outputs, capsys):
    folder, keys = outputs
    assert store(folder, "list") == 0
    lines = {
        key: line
        for line in capsys.readouterr().out.splitlines()
        for key in keys.values()
        if f" {key} " in line
    }
    assert f"transfer {keys['transfer']}" in lines[keys["extract"]]
    assert "a checkpoint" in lines[keys["transfer"]]
    assert "run/1" in lines[keys["named"]]
    assert "30.0" in lines[keys["alone"]]
    assert "alone" in lines[keys["alone"]]


def test_verify_finds_what_is_damaged_and_changes_nothing(outputs, capsys):
    folder, keys = outputs
    assert store(folder, "verify") == 0
    for file in (
        folder / "store" / "eval" / keys["named"] / "data.json",
        folder / "runs" / "run" / "1" / "scores.json",
    ):
        file.write_text(file.read_text().replace("e", "E", 1))
    assert store(folder, "verify") == 1
    told = capsys.readouterr().out
    assert keys["named"] in told
    assert "scores.json" in told
    assert there(folder) == set(keys.values())


def test_prune_keeps_what_is_needed_and_asks_before_an_artifact(outputs, capsys):
    folder, keys = outputs
    assert store(folder, "prune", "--dry-run") == 0
    assert keys["alone"] in capsys.readouterr().out
    assert store(folder, "prune") == 0  # nobody is there to answer
    assert there(folder) == set(keys.values())
    assert store(folder, "prune", "--older-than", "60d", "--yes") == 0
    assert there(folder) == set(keys.values())
    assert store(folder, "prune", "--yes") == 0
    assert there(folder) == set(keys.values()) - {keys["alone"]}


def test_what_was_used_a_moment_ago_is_not_old(outputs):
    folder, keys = outputs
    assert Store(folder / "store").peek("eval", keys["alone"]) is not None
    assert store(folder, "prune", "--yes") == 0
    assert keys["alone"] in there(folder)


def test_a_checkpoint_goes_only_where_its_key_is_given(outputs):
    folder, keys = outputs
    assert store(folder, "prune", "--older-than", "0", "--yes", keys["transfer"]) == 0
    assert there(folder) == set(keys.values()) - {keys["transfer"]}
    assert store(folder, "prune", "--yes", "--older-than", "0") == 0
    assert keys["extract"] not in there(folder)  # now nothing needs it


def test_leftovers_go_and_what_is_held_stays(outputs):
    folder, keys = outputs
    stage = folder / "store" / "transfer"
    for name in ("partial", "tmp-12-ab", "old-12-ab", "corrupt-12-ab"):
        (stage / f"{'a' * 16}.{name}").mkdir()
        (stage / f"{'a' * 16}.{name}" / "x").write_text("x")
    (stage / f"{'b' * 16}.partial").mkdir()
    age(stage)
    with FileLock(stage / f"{'b' * 16}.lock"):
        assert store(folder, "prune") == 0
        assert (stage / f"{'b' * 16}.partial").is_dir()
    left = sorted(path.name for path in stage.iterdir() if path.name != keys["transfer"])
    assert left == [f"{'b' * 16}.lock", f"{'b' * 16}.partial"]


def test_state_that_is_still_written_is_not_old(outputs):
    folder, _ = outputs
    partial = folder / "store" / "transfer" / f"{'a' * 16}.partial"
    (partial / "layer_3").mkdir(parents=True)
    age(partial)
    (partial / "layer_3" / "tensors").write_text("new")
    assert store(folder, "prune") == 0
    assert partial.is_dir()


def test_nothing_of_the_users_is_touched(outputs, tmp_path):
    """Names that are not pkt's, folders without a manifest, links, and folders of no stage."""
    folder, _ = outputs
    stage, mine = folder / "store" / "eval", tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("x")
    (stage / "notes").mkdir()
    (stage / ("c" * 16)).mkdir()
    (stage / ("c" * 16) / "thesis").write_text("x")
    (stage / f"{'d' * 16}.partial").symlink_to(mine)
    (stage / ("e" * 16)).symlink_to(mine)
    (folder / "store" / "mine").mkdir()
    (folder / "store" / "mine" / f"{'f' * 16}.partial").mkdir()
    age(folder / "store")
    before = sorted(
        str(path) for path in [*stage.iterdir(), *mine.iterdir()] if not path.name.endswith(".lock")
    )
    assert store(folder, "prune", "--older-than", "0") == 0
    assert sorted(str(path) for path in [*stage.iterdir(), *mine.iterdir()]) == before
    assert (folder / "store" / "mine" / f"{'f' * 16}.partial").is_dir()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list", "output_dir=/no/such"], "no store at"),
        (["list", "outputdir=x"], "allowed: output_dir="),
        (["prune", "--older-than", "soon"], "number of days"),
        (["prune", "0" * 16], "no artifact"),
        (["shrink"], "invalid choice"),
        ([], "arguments are required"),
    ],
)
def test_wrong_requests_are_one_message(outputs, words, says, capsys, monkeypatch):
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(outputs[0]))
    assert main(["store", *words]) == 2
    assert says in capsys.readouterr().err


def test_help(capsys):
    assert main(["store", "--help"]) == 0
    assert "verify" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["meta", "ingredients", "files", "stage"])
@pytest.mark.parametrize("value", [None, [], 3])
def test_a_manifest_of_another_form_is_one_damaged_artifact_among_others(outputs, capsys, name, value):
    folder, keys = outputs
    file = next(folder.glob(f"store/*/{keys['named']}/manifest.json"))
    manifest = {own: part for own, part in json.loads(file.read_text()).items() if own != "checksum"}
    file.write_text(json.dumps(manifest | {name: value}))
    state = folder / "store" / "transfer" / f"{'0' * 16}.partial" / "state.json"
    state.parent.mkdir()
    state.write_text(sealed({"files": [value]}))
    (folder / "runs" / "run" / "1" / "config.yaml").symlink_to("nowhere")
    assert store(folder, "list") == 0
    assert keys["alone"] in capsys.readouterr().out
    assert store(folder, "verify") == 1
    assert "2 damaged" in capsys.readouterr().out
    assert store(folder, "prune", "--yes") == 0
    assert there(folder) == set(keys.values()) - {keys["alone"]}


def test_what_only_looks_like_ours_stays(outputs, capsys):
    folder, keys = outputs
    theirs = [
        folder / "store" / "eval" / "aaaaaaaaaaaaaaaa" / "manifest.json",
        folder / "store" / "eval" / "bbbbbbbbbbbbbbbb" / "manifest.json",
        folder / "store" / "eval" / "cccccccccccccccc.lock" / "thesis.tex",
    ]
    for file, text in zip(theirs, ("precious", '{"name": "web app", "version": 1}', "precious"), strict=True):
        file.parent.mkdir()
        file.write_text(text)
        age(file.parent)
    assert store(folder, "prune", "--yes") == 0
    assert all(file.is_file() for file in theirs)
    assert keys["alone"] not in there(folder)


def test_an_artifact_with_a_damaged_manifest_is_still_ours(outputs):
    folder, keys = outputs
    manifest = folder / "store" / "eval" / keys["alone"] / "manifest.json"
    manifest.write_text(manifest.read_text()[:-9])
    age(manifest.parent)
    assert store(folder, "prune", "--yes") == 0
    assert not manifest.parent.exists()
