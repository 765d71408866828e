"""What a run's numbers are of, and the steps that a result keeps."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from pkt.planner import Plan, Step
from pkt.stages import identity, steps


def test_settings_that_follow_the_seed_are_found_wherever_they_stand():
    words = {
        "semantics": {"seed": "${seed}", "k": 2},
        "mapping": {"seed": 0},
        "method": {"update": {"draw": "${seed}"}},
    }
    request = OmegaConf.create({"seed": 0, "name": "${semantics.k}", **words})
    assert identity.seeded(request) == {"seed", "semantics.seed", "method.update.draw"}


def planned(**changed):
    """A plan of two stages and scores; what is given is put in place of the rest."""
    given = {
        "seed": 0,
        "semantics.seed": 0,
        "optim.lr": 0.1,
        "eval.limit": None,
        "train": "aa",
        "rows": "r1",
    } | changed

    def step(name: str, takes: tuple[str, ...], **own) -> Step:
        stage = name.partition(" ")[0]
        ingredients = {
            "stage": stage,
            "version": 1,
            "inputs": dict.fromkeys(takes, given["seed"]),
            **own,
        }
        return Step(name=name, stage=stage, takes=takes, ingredients=ingredients, key=name)

    def settings(*names: str):
        return {name: given[name] for name in names}

    models, rows = {"teacher": "t", "student": "s"}, {"custom": {"rows": given["rows"]}}
    align = step("align", (), models=models, settings=settings("semantics.seed"), rows={"align": "bb"})
    trained = {"settings": settings("seed", "optim.lr"), "rows": {"train": given["train"]}}
    transfer = step("transfer", ("align",), models={"student": "s"}, **trained)
    scored = step("eval transferred", ("transfer",), models={}, settings=settings("eval.limit"), tasks=rows)
    bench = SimpleNamespace(identity=lambda role: f"{role[0]}/float32")
    plan = Plan(steps={step.name: step for step in (align, transfer, scored)})
    session = SimpleNamespace(plan=plan, bench=bench, seeded=frozenset({"seed", "semantics.seed"}))
    return identity.study(session), identity.arm(session)


def test_only_the_seed_and_what_follows_it_are_left_out():
    study, arm = planned()
    assert planned(seed=1, **{"semantics.seed": 1}) == (study, arm)
    for change in ({"optim.lr": 0.2}, {"train": "cc"}):
        assert planned(**change)[0] == study
        assert planned(**change)[1] != arm
    for change in ({"eval.limit": 8}, {"rows": "r2"}):
        assert planned(**change)[0] != study
        assert planned(**change)[1] == arm
    assert study["student"] == "s/float32"
    assert arm["transfer rows train"] == "aa"


def test_steps_that_a_resumed_training_did_again_count_once(tmp_path):
    folders = {name: tmp_path / name for name in ("scratch", "folder")}
    for folder in folders.values():
        folder.mkdir()
    told = []
    job = SimpleNamespace(
        writes=True, bench=SimpleNamespace(log=lambda step, metrics: told.append(step)), **folders
    )
    for of in ((1, 2, 3), (2, 3, 4)):  # killed after step 3, whose snapshot was of step 1
        with steps.kept(job):
            for step in of:
                job.bench.log(step, {"loss": 1 / step})
        with (folders["scratch"] / "steps.jsonl").open("a", encoding="utf-8") as stream:
            stream.write('{"kind": "step", "st')
    steps.store(job)
    assert told == [1, 2, 3, 2, 3, 4]
    assert json.loads((folders["folder"] / "steps.json").read_text(encoding="utf-8")).keys() == set("1234")
    assert steps.stored(folders["folder"])[4] == {"loss": 0.25}
    assert steps.stored(tmp_path) == {}


def test_each_line_of_steps_is_on_the_disk_before_the_next_step(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        "pkt.stages.steps.os.fsync", lambda _: synced.append((tmp_path / "steps.jsonl").stat().st_size)
    )
    job = SimpleNamespace(
        writes=True, bench=SimpleNamespace(log=lambda step, metrics: None), scratch=tmp_path
    )
    with steps.kept(job):
        for step in (1, 2):
            job.bench.log(step, {"loss": 1.0})
            assert synced[-1] == (tmp_path / "steps.jsonl").stat().st_size
    assert len(synced) == 2


@pytest.mark.parametrize("changed", [b"0.26", b"0.2\xb5", b"0.2\n", b""])
def test_a_line_of_steps_that_was_changed_is_left_out_and_said_so(tmp_path, changed, capsys):
    job = SimpleNamespace(
        writes=True, bench=SimpleNamespace(log=lambda step, metrics: None), scratch=tmp_path, folder=tmp_path
    )
    with steps.kept(job):
        for step in (1, 2, 3):
            job.bench.log(step, {"loss": 0.25 if step == 2 else 0.5})
    lines = tmp_path / "steps.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b"0.25", changed))
    steps.store(job)
    assert steps.stored(tmp_path) == {1: {"loss": 0.5}, 3: {"loss": 0.5}}
    assert "the lines of 1 steps of this training are damaged" in "".join(capsys.readouterr())
